//! Pages of a listing: all records in the order of their rows, even if parts of the table are
//! damaged.

use keystead_core::ErrorKind;
use keystead_sealing::{RECORD_PREFIX_LEN, RECORD_STEP, RowKey};
use rusqlite::{OptionalExtension, ToSql, params};

use super::{Cell, Found, HEAD, Link, MAX_PARTS, Neighbor, PART_LEN, Part, last_part, part_of, row_of, row_with};
use crate::database::Database;
use crate::error::{FileError, Result};

/// The number of cells that a page of a listing reads. It is larger than the number of cells of a
/// record, so each page contains the end of at least one record.
const PAGE: u32 = 512;

/// The number of places at which a damaged stretch is probed for readable pages.
const PROBES: u64 = 64;

/// The largest number of cells that are read backwards from the end of a damaged stretch.
const MAX_BEFORE: usize = 256;

/// The number of times that the end of a damaged stretch is searched for at an earlier place.
const MAX_STRETCHES: usize = 16;

/// The key, the bytes and the successor of a cell.
type OwnedCell = (Vec<u8>, Vec<u8>, Option<Link>);

/// A page of a listing.
pub(crate) struct Page {
    pub(crate) records: Vec<(RowKey, Found)>,
    /// The beginning of the next page, if there may be one.
    pub(crate) next: Option<Cursor>,
    /// The damage between this page and the next one, where records may be missing.
    pub(crate) damage: Option<FileError>,
}

/// The beginning of a page.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    /// The first cell of the table.
    Start,
    /// The cell after the one with this key. The chain is followed from there.
    After(Part),
    /// The first cell whose key is not less than this one, after damage. Nothing is known of the
    /// chain before it.
    From(Vec<u8>),
}

impl Database {
    /// Reads a page of records in the order of their rows.
    ///
    /// If a part of the table cannot be read, the page ends there and reports the damage. The next
    /// page begins where the table can be read again. Each page begins after the previous one, so
    /// every listing ends.
    pub(crate) fn page(&self, cursor: &Cursor) -> Result<Page> {
        self.reading(|| self.read_page(cursor))
    }

    /// Like [`page`](Self::page), inside a transaction of the caller's.
    pub(crate) fn read_page(&self, cursor: &Cursor) -> Result<Page> {
        let (comparison, bound): (_, &dyn ToSql) = match cursor {
            // Keys of other types come before all blobs.
            Cursor::Start => (">", &f64::NEG_INFINITY),
            Cursor::After(part) => (">", part),
            Cursor::From(key) => (">=", key),
        };
        let mut run = Run { expected: self.expected_at(cursor)?, ..Run::default() };
        let sql = format!("SELECT part, bytes, next FROM cells WHERE part {comparison} ?1 ORDER BY part LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut cells = statement.query(params![bound, PAGE])?;
        let stop = loop {
            let stop = match cells.next().map_err(FileError::from) {
                Ok(Some(row)) => run.add(&Cell::read(row)?),
                Ok(None) if run.read < PAGE => Some(Stop::End),
                Ok(None) => Some(Stop::Full),
                Err(failure) if failure.kind() == ErrorKind::Corrupt => Some(Stop::Unreadable(failure)),
                Err(failure) => return Err(failure),
            };
            if let Some(stop) = stop {
                break stop;
            }
        };
        let (next, damage) = match stop {
            Stop::End => {
                run.add_broken();
                run.add_missing_before(Link::END);
                (None, None)
            }
            Stop::Unreadable(failure) => {
                let end = run.end.clone().unwrap_or_else(|| cursor.key().to_vec());
                let readable = self.readable_after(&end)?;
                run.add_broken();
                run.expected = None;
                for (key, bytes, next) in self.cells_before(readable.as_deref(), &end)? {
                    run.add(&Cell { key: Some(&key), bytes: &bytes, next });
                }
                (readable.map(Cursor::From), Some(failure))
            }
            // The page may end within its last record, so the next page begins with that record.
            Stop::Full if run.records.len() > 1 && run.end_of_whole.is_some() => {
                run.records.pop();
                (run.end_of_whole.map(Cursor::after), None)
            }
            // The page has only cells whose keys are of another type. More of them are skipped.
            Stop::Full => (Some(run.end.map_or(Cursor::From(Vec::new()), Cursor::after)), None),
        };
        let records = run.records.into_iter().map(|(row, record)| (row, record.finish(&row))).collect();
        Ok(Page { records, next, damage })
    }

    /// Returns the link of the cell before a page; `None` if it is unknown.
    fn expected_at(&self, cursor: &Cursor) -> Result<Option<Link>> {
        let part = match cursor {
            Cursor::Start => return Ok(Some(Link::to(&HEAD))),
            Cursor::After(part) => part,
            Cursor::From(_) => return Ok(None),
        };
        let sql = "SELECT part, NULL, next FROM cells WHERE part <= ?1 ORDER BY part DESC LIMIT 1";
        match self.neighbor(sql, part) {
            Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(None),
            neighbor => Ok(neighbor?.map(|neighbor| neighbor.next)),
        }
    }

    /// Returns the first prefix after `key` from which the table can be read again; `None` if there
    /// is none.
    ///
    /// Row keys are spread evenly, so a damaged page covers a short range of them. The end of the
    /// range is found by doubling and halving its length. Doubling may skip intact pages between
    /// two damaged ones, so the range is then probed at even distances.
    fn readable_after(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let start = prefix_of(key);
        let mut unreadable = start;
        let mut readable = loop {
            if unreadable == u64::MAX {
                return Ok(None);
            }
            let next = unreadable.saturating_add(unreadable - start + 1);
            if self.is_readable_from(next)? {
                break self.end_of_damage(unreadable, next)?;
            }
            unreadable = next;
        };
        for _ in 0..MAX_STRETCHES {
            match self.readable_between(start, readable)? {
                Some(earlier) => readable = earlier,
                None => break,
            }
        }
        Ok(Some(readable.to_be_bytes().to_vec()))
    }

    /// Returns the lowest prefix from which the table can be read, between one from which it cannot
    /// be read and one from which it can. Found by halving.
    fn end_of_damage(&self, mut unreadable: u64, mut readable: u64) -> Result<u64> {
        while readable - unreadable > 1 {
            let middle = unreadable + (readable - unreadable) / 2;
            if self.is_readable_from(middle)? { readable = middle } else { unreadable = middle }
        }
        Ok(readable)
    }

    /// Returns an earlier prefix from which the table can be read, if a probe finds one.
    fn readable_between(&self, start: u64, readable: u64) -> Result<Option<u64>> {
        let step = (readable - start) / PROBES;
        let mut unreadable = start;
        for probe in (1..PROBES).map(|number| start + number * step).take_while(|_| step > 0) {
            if self.is_readable_from(probe)? {
                return self.end_of_damage(unreadable, probe).map(Some);
            }
            unreadable = probe;
        }
        Ok(None)
    }

    /// Reports whether the first cell from this prefix on can be read completely.
    fn is_readable_from(&self, prefix: u64) -> Result<bool> {
        let sql = "SELECT part, bytes, next FROM cells WHERE part >= ?1 ORDER BY part LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let start = prefix.to_be_bytes();
        let first = statement
            .query_row([start], |row| {
                let part = row.get_ref(0)?.as_blob().unwrap_or_default();
                Ok(part >= &start[..] && row.get_ref(1).is_ok() && row.get_ref(2).is_ok())
            })
            .optional();
        match first.map_err(FileError::from) {
            Ok(in_order) => Ok(in_order.unwrap_or(true)),
            Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Returns the last cells of a damaged stretch, in the order of their keys. They are read from
    /// the end of the stretch backwards.
    ///
    /// In SQLite's tree, the cell that follows a damaged leaf page is in an inner page. A search
    /// that goes forward reaches it only through the damaged page, even if it searches for its
    /// exact key.
    fn cells_before(&self, end: Option<&[u8]>, beginning: &[u8]) -> Result<Vec<OwnedCell>> {
        // The record that was being read has been reported already, so its other cells are skipped.
        let rest_of_record = last_part(&row_of(beginning));
        let beginning = if beginning.is_empty() { beginning } else { beginning.max(&rest_of_record[..]) };
        let end = end.unwrap_or(&[u8::MAX; PART_LEN + 1]);
        let sql = "SELECT part, bytes, next FROM cells WHERE part < ?1 AND part > ?2 ORDER BY part DESC";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([end, beginning])?;
        let mut cells: Vec<OwnedCell> = Vec::new();
        while cells.len() < MAX_BEFORE {
            let row = match rows.next().map_err(FileError::from) {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(failure) if failure.kind() == ErrorKind::Corrupt => break,
                Err(failure) => return Err(failure),
            };
            let Cell { key, bytes, next } = Cell::read(row)?;
            let before = cells.last().map_or(end, |(key, ..)| key);
            match key {
                Some(key) if key < before && key > beginning => cells.push((key.to_vec(), bytes.to_vec(), next)),
                _ => break,
            }
        }
        cells.reverse();
        Ok(cells)
    }

    /// Counts the records, intact or not.
    pub(crate) fn count_records(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM cells WHERE substr(part, 33) = x'00' AND part > ?1";
        Ok(self.connection.query_row(sql, [HEAD], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Reports whether the chain is intact from end to end and each record begins with this prefix.
    /// Returns false if anything is damaged, even a cell that belongs to no record.
    pub(crate) fn proves_all_begin_with(&self, prefix: &[u8; RECORD_PREFIX_LEN]) -> Result<bool> {
        let sql = "SELECT part, substr(bytes, 1, 5), next FROM cells ORDER BY part";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([])?;
        let mut chain = Chain::default();
        loop {
            let row = match cells.next().map_err(FileError::from) {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(chain.is_complete()),
                Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(false),
                Err(failure) => return Err(failure),
            };
            let cell = Cell::read(row)?;
            let Some(neighbor) = cell.neighbor() else { return Ok(false) };
            let begins_record = neighbor.part[PART_LEN - 1] == 0 && neighbor.part != HEAD;
            if !chain.follow(neighbor) || (begins_record && cell.bytes != prefix) {
                return Ok(false);
            }
        }
    }
}

/// The chain as far as it has been followed without a gap.
#[derive(Default)]
struct Chain {
    /// The last cell; `None` before the head.
    last: Option<Neighbor>,
}

impl Chain {
    /// Continues with a cell. Returns false if the chain does not lead to it.
    fn follow(&mut self, cell: Neighbor) -> bool {
        match self.last.replace(cell) {
            None => cell.part == HEAD,
            Some(last) => last.part < cell.part && last.next == Link::to(&cell.part),
        }
    }

    fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| last.next == Link::END)
    }
}

impl Cursor {
    /// Returns the cursor to the cell after this key.
    fn after(key: Vec<u8>) -> Self {
        match Part::try_from(key.as_slice()) {
            Ok(part) => Self::After(part),
            // This is the next key in the order of blobs.
            Err(_) => Self::From([key.as_slice(), &[0]].concat()),
        }
    }

    /// Returns the key at which the page begins.
    fn key(&self) -> &[u8] {
        match self {
            Self::Start => &[],
            Self::After(part) => part,
            Self::From(key) => key,
        }
    }
}

/// The reason why a page ends.
enum Stop {
    /// There are no more cells.
    End,
    /// The page has its largest number of cells.
    Full,
    /// The table cannot be read here.
    Unreadable(FileError),
}

/// The records of a page, built cell by cell.
#[derive(Default)]
struct Run {
    records: Vec<(RowKey, Joined)>,
    /// The number of cells that have been read.
    read: u32,
    /// The link of the last cell of the chain; `None` if it is unknown.
    expected: Option<Link>,
    /// The row of the last cell of the chain, if the link of that cell is damaged.
    broken: Option<RowKey>,
    /// True if the last record belongs to the chain.
    is_chained: bool,
    /// The key of the last cell.
    end: Option<Vec<u8>>,
    /// The key of the last cell of the last record but one.
    end_of_whole: Option<Vec<u8>>,
}

impl Run {
    /// Adds a cell. Returns the reason to stop if its key is not above the previous one.
    fn add(&mut self, cell: &Cell<'_>) -> Option<Stop> {
        let Some(key) = cell.key else {
            // A key of another type belongs to no record and says nothing about the chain. All such
            // cells are reported as one damaged record.
            if self.records.is_empty() {
                self.records.push((row_of(&HEAD), Joined { damaged: true, ..Joined::default() }));
            }
            self.read += 1;
            return None;
        };
        if self.end.as_deref().is_some_and(|end| key <= end) {
            return Some(Stop::Unreadable(FileError::lost_cells()));
        }
        let row = row_of(key);
        let begins = self.records.last().is_none_or(|(last, _)| *last != row);
        if begins && key != HEAD {
            self.begin(cell, row);
        }
        if key == HEAD || self.is_chained {
            self.expected = cell.next;
            if cell.next.is_none() {
                self.broken = Some(row);
            }
        }
        if key != HEAD
            && let Some((_, record)) = self.records.last_mut()
        {
            record.add(cell, &row);
        }
        self.read += 1;
        self.end = Some(key.to_vec());
        None
    }

    /// Begins a record and checks whether the chain leads to it.
    fn begin(&mut self, cell: &Cell<'_>, row: RowKey) {
        let link = cell.part().map(Link::to);
        self.add_broken();
        // A cell that comes before the expected one, or whose key is damaged, does not belong to
        // the chain.
        self.is_chained = match (self.expected, link) {
            (None, _) => true,
            (Some(expected), Some(link)) => expected <= link,
            (Some(_), None) => false,
        };
        if let Some(link) = link.filter(|_| self.is_chained) {
            self.add_missing_before(link);
        }
        self.end_of_whole = self.end.take();
        // A record that the chain skips may be a copy of a deleted one.
        self.records.push((row, Joined { damaged: !self.is_chained, ..Joined::default() }));
    }

    /// Adds a damaged record after a damaged link, because records may be missing there.
    fn add_broken(&mut self) {
        if let Some(broken) = self.broken.take() {
            self.records.push((row_behind(&broken), Joined { damaged: true, ..Joined::default() }));
        }
    }

    /// Adds a damaged record if the chain names one before this cell: it is missing.
    fn add_missing_before(&mut self, link: Link) {
        if let Some(expected) = self.expected.filter(|expected| *expected < link) {
            self.records.push((row_of(expected.prefix()), Joined { damaged: true, ..Joined::default() }));
        }
    }
}

/// The parts of one record, in the order of their numbers.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    parts: usize,
    /// The link of the last part.
    next: Option<Link>,
    damaged: bool,
}

impl Joined {
    /// Adds the cell that follows in the table.
    fn add(&mut self, cell: &Cell<'_>, row: &RowKey) {
        let in_turn = self.parts < MAX_PARTS && cell.part() == Some(&part_of(row, self.parts));
        let is_named = self.next.is_none_or(|next| cell.part().map(Link::to) == Some(next));
        self.damaged |= !in_turn || !is_named || cell.bytes.len() != RECORD_STEP;
        self.parts += 1;
        self.next = cell.next;
        if !self.damaged {
            self.bytes.extend_from_slice(cell.bytes);
        }
    }

    /// Ends the record after its last cell.
    fn finish(self, row: &RowKey) -> Found {
        let ends = self.next.is_none_or(|next| !next.leads_into(row));
        match self {
            Self { damaged: false, bytes, .. } if ends => Found::Record(bytes),
            _ => Found::Damaged,
        }
    }
}

/// Returns the row that stands for the records that may be missing after a damaged link: the
/// highest one that begins like the row of the link.
fn row_behind(row: &RowKey) -> RowKey {
    row_with(&row.as_bytes()[..Link::PREFIX_LEN], u8::MAX)
}

/// Returns the first 8 bytes of a key as a number.
fn prefix_of(key: &[u8]) -> u64 {
    key.iter().chain(std::iter::repeat(&0)).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
