//! Pages of the chain: listing all records in their order, and past damage.

use keystead_core::ErrorKind;
use keystead_sealing::{RECORD_PREFIX_LEN, RECORD_STEP, RowKey};
use rusqlite::{OptionalExtension, ToSql, params};

use super::{Cell, Found, HEAD, Link, MAX_PARTS, Neighbor, PART_LEN, Part, last_part, part_of, row_of, row_with};
use crate::database::Database;
use crate::error::{FileError, Result};

/// The number of cells that a page of a listing reads. It is more than one record can have, so that
/// each page ends at least one record.
const PAGE: u32 = 512;

/// The number of places at which a damaged stretch is probed for pages that can be read.
const PROBES: u64 = 64;

/// The number of cells at most that are read from the end of a damaged stretch.
const MAX_BEFORE: usize = 256;

/// The key, the bytes and the successor of a cell.
type OwnedCell = (Vec<u8>, Vec<u8>, Option<Link>);

/// The number of times that an earlier end of a damaged stretch is looked for.
const MAX_STRETCHES: usize = 16;

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
    /// At the very first cell.
    Start,
    /// After this cell, whose successor is known.
    After(Part),
    /// At the first cell that is not less than this one, behind damage.
    From(Vec<u8>),
}

impl Database {
    /// Some records in the order of their row keys. Where the table is damaged the page ends, and
    /// says so, and the next one begins where the table can be read again. Each page begins after
    /// the one before it, so a listing ends.
    pub(crate) fn page(&self, cursor: &Cursor) -> Result<Page> {
        self.reading(|| self.read_page(cursor))
    }

    /// The same inside a transaction.
    pub(crate) fn read_page(&self, cursor: &Cursor) -> Result<Page> {
        let (comparison, bound): (_, &dyn ToSql) = match cursor {
            // Cells of other types come before all blobs.
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
                run.count_broken();
                run.end_at(Link::END);
                (None, None)
            }
            Stop::Unreadable(failure) => {
                let end = run.end.clone().unwrap_or_else(|| cursor.key().to_vec());
                let readable = self.readable_after(&end)?;
                run.count_broken();
                run.expected = None;
                for (key, bytes, next) in self.cells_before(readable.as_deref(), &end)? {
                    run.add(&Cell { key: Some(&key), bytes: &bytes, next });
                }
                (readable.map(Cursor::From), Some(failure))
            }
            // The page may have cut the last record, so the next one starts with it.
            Stop::Full if run.records.len() > 1 && run.end_of_whole.is_some() => {
                run.records.pop();
                (run.end_of_whole.map(Cursor::after), None)
            }
            // Nothing but cells of another type: those beyond this page are skipped.
            Stop::Full => (Some(run.end.map_or(Cursor::From(Vec::new()), Cursor::after)), None),
        };
        let records = run.records.into_iter().map(|(row, record)| (row, record.finish(&row))).collect();
        Ok(Page { records, next, damage })
    }

    /// The successor that the cell before a page names; `None` if that is unknown.
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

    /// The first prefix behind damage from which reading can go on; `None` if there is none.
    ///
    /// Row keys are spread evenly, so a damaged page is a short stretch of them. Its end is found
    /// by doubling and halving. That may pass over whole pages between two damaged ones, so the
    /// stretch is probed evenly for them.
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

    /// The first of these prefixes from which a page can be read, found by halving. The first is
    /// known to be unreadable, and the last to be readable.
    fn end_of_damage(&self, mut unreadable: u64, mut readable: u64) -> Result<u64> {
        while readable - unreadable > 1 {
            let middle = unreadable + (readable - unreadable) / 2;
            if self.is_readable_from(middle)? { readable = middle } else { unreadable = middle }
        }
        Ok(readable)
    }

    /// An earlier prefix from which a page can be read, if evenly spread probes find one.
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

    /// Reports whether a page that begins here can read its first cell, all of it.
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

    /// The last cells of a damaged stretch, read from its end towards its beginning, in the order
    /// of their keys.
    ///
    /// The cell that follows a damaged page is in an inner page. Every search for it that goes
    /// forward passes through the damaged page, even one for its very key.
    fn cells_before(&self, end: Option<&[u8]>, beginning: &[u8]) -> Result<Vec<OwnedCell>> {
        // What was read of a record is reported already.
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

    /// Counts the records, whole or not.
    pub(crate) fn count_records(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM cells WHERE substr(part, 33) = x'00' AND part > ?1";
        Ok(self.connection.query_row(sql, [HEAD], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Reports whether the chain is whole from end to end and each record begins with this prefix.
    /// Damage, also a cell that is no part of a record, proves nothing.
    pub(crate) fn proves_all_begin_with(&self, prefix: &[u8; RECORD_PREFIX_LEN]) -> Result<bool> {
        let sql = "SELECT part, substr(bytes, 1, 5), next FROM cells ORDER BY part";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([])?;
        let mut expected = Link::to(&HEAD);
        let mut last: Option<Part> = None;
        loop {
            let row = match cells.next().map_err(FileError::from) {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(expected == Link::END),
                Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(false),
                Err(failure) => return Err(failure),
            };
            let cell = Cell::read(row)?;
            let Some(Neighbor { part, next }) = cell.neighbor() else { return Ok(false) };
            let is_first = part[PART_LEN - 1] == 0 && part != HEAD;
            let in_order = last.is_none_or(|last| last < part) && Link::to(&part) == expected;
            if !in_order || (is_first && cell.bytes != prefix) {
                return Ok(false);
            }
            expected = next;
            last = Some(part);
        }
    }
}

impl Cursor {
    fn after(key: Vec<u8>) -> Self {
        match Part::try_from(key.as_slice()) {
            Ok(part) => Self::After(part),
            // The next key in the order of blobs.
            Err(_) => Self::From([key.as_slice(), &[0]].concat()),
        }
    }

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
    /// As many cells were read as a page may have.
    Full,
    Unreadable(FileError),
}

/// The cells of a page as they are read.
#[derive(Default)]
struct Run {
    records: Vec<(RowKey, Joined)>,
    /// The number of cells that were read.
    read: u32,
    /// The successor that the last cell of the chain names.
    expected: Option<Link>,
    /// The row of the last cell of the chain whose link is damaged.
    broken: Option<RowKey>,
    /// True if the last cell belongs to the chain.
    is_chained: bool,
    /// The key of the last cell.
    end: Option<Vec<u8>>,
    /// The key of the last cell of the record before the last one.
    end_of_whole: Option<Vec<u8>>,
}

impl Run {
    fn add(&mut self, cell: &Cell<'_>) -> Option<Stop> {
        let Some(key) = cell.key else {
            // A value of another type is no part of a record, and says nothing about the chain.
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

    /// Begins a record, and looks whether the chain leads to it.
    fn begin(&mut self, cell: &Cell<'_>, row: RowKey) {
        let link = cell.part().map(Link::to);
        self.count_broken();
        // A cell that comes before the expected one, or has no proper key, does not belong to the
        // chain.
        self.is_chained = match (self.expected, link) {
            (None, _) => true,
            (Some(expected), Some(link)) => expected <= link,
            (Some(_), None) => false,
        };
        if let Some(link) = link.filter(|_| self.is_chained) {
            self.end_at(link);
        }
        self.end_of_whole = self.end.take();
        // A record that the chain passes over may be a copy of one that was deleted.
        self.records.push((row, Joined { damaged: !self.is_chained, ..Joined::default() }));
    }

    /// Counts what is behind a damaged link as a damaged record, because records may be missing
    /// there.
    fn count_broken(&mut self) {
        if let Some(broken) = self.broken.take() {
            self.records.push((row_behind(&broken), Joined { damaged: true, ..Joined::default() }));
        }
    }

    /// Counts a record as damaged if the chain names one before this cell.
    fn end_at(&mut self, link: Link) {
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
    next: Option<Link>,
    damaged: bool,
}

impl Joined {
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

    fn finish(self, row: &RowKey) -> Found {
        let ends = self.next.is_none_or(|next| !next.leads_into(row));
        match self {
            Self { damaged: false, bytes, .. } if ends => Found::Record(bytes),
            _ => Found::Damaged,
        }
    }
}

/// The last row that begins like this one. It stands for what is missing behind a damaged link.
fn row_behind(row: &RowKey) -> RowKey {
    row_with(&row.as_bytes()[..Link::PREFIX_LEN], u8::MAX)
}

/// The first 8 bytes of a key, as a number.
fn prefix_of(key: &[u8]) -> u64 {
    key.iter().chain(std::iter::repeat(&0)).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
