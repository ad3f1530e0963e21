//! The table of cells: records cut into parts, in the order of their row keys, each naming its successor.
//! FORMAT.md, "cells", is the specification.
//!
//! A missing record is proved missing by its predecessor, as NSEC records do it in DNSSEC (RFC 4034, section 4).

use keystead_core::ErrorKind;
use keystead_sealing::{RECORD_PREFIX_LEN, RECORD_STEP, RowKey, SealedRecord};
use rusqlite::{OptionalExtension, Row, ToSql, params};

use crate::database::Database;
use crate::error::{Failure, Result};

/// No valid record has more parts.
const MAX_PARTS: usize = 13;

/// The number of cells that a page of a listing reads. It is more than one record can have, so that each page ends at
/// least one record.
const PAGE: u32 = 512;

const PART_LEN: usize = size_of::<RowKey>() + 1;

/// The key of a cell: a row key and the number of a part.
pub(crate) type Part = [u8; PART_LEN];

/// The cell before all records. HMAC-SHA-256 gives no row key of zeros.
const HEAD: Part = [0; PART_LEN];

/// The name of a cell's successor: the first 8 bytes of its row key, and the number of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link([u8; Self::LEN]);

impl Link {
    const PREFIX_LEN: usize = 8;
    const LEN: usize = Self::PREFIX_LEN + 1;

    /// The successor of the last cell.
    const END: Self = Self([u8::MAX; Self::LEN]);

    fn to(part: &Part) -> Self {
        let mut link = [part[PART_LEN - 1]; Self::LEN];
        link[..Self::PREFIX_LEN].copy_from_slice(&part[..Self::PREFIX_LEN]);
        Self(link)
    }

    /// Where the successor's row key begins.
    fn prefix(&self) -> &[u8] {
        &self.0[..Self::PREFIX_LEN]
    }

    /// Reports whether a row certainly comes before the successor.
    pub(crate) fn is_after(&self, row: &RowKey) -> bool {
        self.prefix() > &row[..Self::PREFIX_LEN]
    }

    fn leads_into(&self, row: &RowKey) -> bool {
        self.prefix() == &row[..Self::PREFIX_LEN]
    }
}

/// The record that is found under a row key.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is provably none.
    Nothing,
    /// The parts of a record, joined.
    Record(Vec<u8>),
    /// Parts that no record of ours has.
    Damaged,
}

/// The place of a row in the chain, for a writer.
pub(crate) enum Place {
    /// There is provably no record, and one can be inserted between these two.
    Vacant { previous: Part, next: Link },
    /// There is a record, whole or not.
    Occupied {
        /// What follows the record; `None` if its end is damaged.
        next: Option<Link>,
        /// The number of its parts, if its end is whole.
        parts: usize,
    },
}

/// A page of a listing.
pub(crate) struct Page {
    pub(crate) records: Vec<(RowKey, Found)>,
    /// Where to go on, if there may be more.
    pub(crate) next: Option<Cursor>,
    /// Why records may be missing between this page and the next one.
    pub(crate) damage: Option<Failure>,
}

/// Where a page begins.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    /// At the very first cell.
    Start,
    /// After this cell, whose successor is known.
    After(Part),
    /// At the first cell that is not less than this one, behind damage.
    From(Vec<u8>),
}

/// A cell as it is in the table: columns of another type are `None` or empty.
struct Cell<'a> {
    /// `None` if it is no blob.
    key: Option<&'a [u8]>,
    bytes: &'a [u8],
    next: Option<Link>,
}

impl<'a> Cell<'a> {
    fn read(row: &'a Row<'_>) -> Result<Self> {
        let next = row.get_ref(2)?.as_blob().ok().and_then(|next| next.try_into().ok()).map(Link);
        Ok(Self { key: row.get_ref(0)?.as_blob().ok(), bytes: row.get_ref(1)?.as_blob().unwrap_or_default(), next })
    }

    fn part(&self) -> Option<&'a Part> {
        self.key?.try_into().ok()
    }

    /// The cell's key and its successor, if both are whole.
    fn neighbor(&self) -> Option<Neighbor> {
        Some(Neighbor { part: *self.part()?, next: self.next? })
    }

    fn is_of(&self, row: &RowKey) -> bool {
        self.key.is_some_and(|key| key.starts_with(row))
    }
}

#[derive(Clone, Copy)]
struct Neighbor {
    part: Part,
    next: Link,
}

impl Neighbor {
    /// Reports whether no cell of this row can follow, given the cell before this one.
    fn proves_absence(&self, row: &RowKey, before: Option<Self>) -> bool {
        // A cell whose key was damaged behind these bytes may be the record itself.
        let is_below = self.part[..Link::PREFIX_LEN] < row[..Link::PREFIX_LEN];
        let skips = self.next.is_after(row);
        // A cell whose own key was damaged is not the one that its predecessor names.
        let is_named = match before {
            Some(before) => before.part < self.part && before.next == Link::to(&self.part),
            None => self.part == HEAD,
        };
        is_below && skips && is_named
    }
}

impl Database {
    /// Inserts the cell before all records, into an empty table.
    pub(crate) fn insert_head(&self) -> Result<()> {
        self.insert(&HEAD, &[0; RECORD_STEP], Link::END)
    }

    /// The record of a row.
    ///
    /// Fails as damaged if there is none and the chain does not prove it.
    pub(crate) fn record(&self, row: &RowKey) -> Result<Found> {
        let sql = "SELECT part, bytes, next FROM cells WHERE part <= ?1 ORDER BY part DESC";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([last_part(row)])?;
        let Some(first) = cells.next()? else { return Err(Failure::lost_cells()) };
        let mut cell = Cell::read(first)?;
        if !cell.is_of(row) {
            let previous = cell.neighbor();
            let before = match cells.next()? {
                Some(before) => Some(Cell::read(before)?.neighbor().ok_or_else(Failure::lost_cells)?),
                None => None,
            };
            let proved = previous.is_some_and(|previous| previous.proves_absence(row, before));
            return if proved { Ok(Found::Nothing) } else { Err(Failure::lost_cells()) };
        }
        // From its last part to its first.
        let Some(last) = cell.part().map(|part| usize::from(part[PART_LEN - 1])) else { return Ok(Found::Damaged) };
        if last >= MAX_PARTS || cell.next.is_none_or(|next| next.leads_into(row)) {
            return Ok(Found::Damaged);
        }
        let mut record = vec![0; (last + 1) * RECORD_STEP];
        for (number, step) in record.chunks_exact_mut(RECORD_STEP).enumerate().rev() {
            if number < last {
                let Some(earlier) = cells.next()? else { return Ok(Found::Damaged) };
                cell = Cell::read(earlier)?;
            }
            let part = part_of(row, number);
            let leads_on = number == last || cell.next == Some(Link::to(&part_of(row, number + 1)));
            if cell.part() != Some(&part) || cell.bytes.len() != RECORD_STEP || !leads_on {
                return Ok(Found::Damaged);
            }
            step.copy_from_slice(cell.bytes);
        }
        Ok(Found::Record(record))
    }

    /// The place of a row.
    ///
    /// Fails as damaged if there is no record and the chain does not prove it.
    pub(crate) fn place(&self, row: &RowKey) -> Result<Place> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT part, NULL, next FROM cells WHERE part <= ?1 ORDER BY part DESC LIMIT 2")?;
        let mut cells = statement.query([last_part(row)])?;
        let Some(first) = cells.next()? else { return Err(Failure::lost_cells()) };
        let cell = Cell::read(first)?;
        if cell.is_of(row) {
            let next = cell.next.filter(|next| cell.part().is_some() && !next.leads_into(row));
            let parts = cell.part().map_or(0, |part| usize::from(part[PART_LEN - 1]) + 1);
            return Ok(Place::Occupied { next, parts });
        }
        let previous = cell.neighbor().ok_or_else(Failure::lost_cells)?;
        let before = match cells.next()? {
            Some(before) => Some(Cell::read(before)?.neighbor().ok_or_else(Failure::lost_cells)?),
            None => None,
        };
        if !previous.proves_absence(row, before) {
            return Err(Failure::lost_cells());
        }
        Ok(Place::Vacant { previous: previous.part, next: previous.next })
    }

    /// Inserts a record into a vacant place.
    pub(crate) fn insert_record(&self, row: &RowKey, record: &[u8], previous: &Part, next: Link) -> Result<()> {
        self.append_record(row, record, next)?;
        self.relink(previous, Link::to(&part_of(row, 0)))
    }

    /// Inserts records that are in order between these two, and returns the last cell.
    pub(crate) fn insert_run<'a>(
        &self,
        records: impl Iterator<Item = &'a SealedRecord>,
        previous: &Part,
        next: Link,
    ) -> Result<Part> {
        let mut records = records.peekable();
        let Some(first) = records.peek() else { return Ok(*previous) };
        self.relink(previous, Link::to(&part_of(&first.row, 0)))?;
        let mut last = *previous;
        while let Some(record) = records.next() {
            let next = records.peek().map_or(next, |follower| Link::to(&part_of(&follower.row, 0)));
            self.append_record(&record.row, &record.bytes, next)?;
            last = part_of(&record.row, (record.bytes.len() / RECORD_STEP).saturating_sub(1));
        }
        Ok(last)
    }

    /// Inserts the cells of a record whose predecessor names it already, or will.
    fn append_record(&self, row: &RowKey, record: &[u8], next: Link) -> Result<()> {
        let count = record.len() / RECORD_STEP;
        for (number, bytes) in record.chunks_exact(RECORD_STEP).enumerate() {
            let next = if number + 1 == count { next } else { Link::to(&part_of(row, number + 1)) };
            self.insert(&part_of(row, number), bytes, next)?;
        }
        Ok(())
    }

    /// Makes this cell name another successor.
    pub(crate) fn relink(&self, part: &Part, next: Link) -> Result<()> {
        let mut statement = self.connection.prepare_cached("UPDATE cells SET next = ?2 WHERE part = ?1")?;
        if statement.execute(params![part, next.0])? == 1 { Ok(()) } else { Err(Failure::lost_cells()) }
    }

    /// Writes a record in the place of another that has this many parts, and this successor.
    pub(crate) fn replace_record(&self, row: &RowKey, record: &[u8], parts: usize, next: Link) -> Result<()> {
        let sql = "INSERT INTO cells VALUES (?1, ?2, ?3) \
                   ON CONFLICT (part) DO UPDATE SET bytes = excluded.bytes, next = excluded.next";
        let mut statement = self.connection.prepare_cached(sql)?;
        let count = record.len() / RECORD_STEP;
        for (number, bytes) in record.chunks_exact(RECORD_STEP).enumerate() {
            let next = if number + 1 == count { next } else { Link::to(&part_of(row, number + 1)) };
            statement.execute(params![part_of(row, number), bytes, next.0])?;
        }
        if parts != count {
            let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
            statement.execute([part_of(row, count), last_part(row)])?;
        }
        Ok(())
    }

    /// Deletes a damaged record for good and returns whether it existed. If the row is the beginning of one that the chain
    /// names and that is missing, the chain is closed: what is missing there is given up.
    pub(crate) fn delete_damaged_record(&self, row: &RowKey) -> Result<bool> {
        let first = part_of(row, 0);
        if first == HEAD {
            // Cells of other types are reported so, and no row leads to them.
            return Ok(false);
        }
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        let deleted = statement.execute([first, last_part(row)])? > 0;
        let Some(previous) = self.previous(&first)? else { return Ok(deleted) };
        let follower = self.link_after(&previous.part)?;
        let closing = follower.filter(|follower| previous.next.leads_into(row) && previous.next != *follower);
        if let Some(follower) = closing {
            self.relink(&previous.part, follower)?;
        }
        Ok(deleted || closing.is_some())
    }

    /// The link to the cell after this one; `None` if that has no proper key.
    fn link_after(&self, part: &Part) -> Result<Option<Link>> {
        let sql = "SELECT part, NULL, next FROM cells WHERE part > ?1 ORDER BY part LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([part])?;
        match cells.next()? {
            Some(row) => Ok(Cell::read(row)?.part().map(Link::to)),
            None => Ok(Some(Link::END)),
        }
    }

    /// Deletes a record and returns whether it existed.
    ///
    /// The chain is closed over the record only where it is whole on both sides: a gap beside it stays a gap.
    pub(crate) fn delete_record(&self, row: &RowKey) -> Result<bool> {
        let Place::Occupied { next, .. } = self.place(row)? else { return Ok(false) };
        let first = part_of(row, 0);
        let previous = self.previous(&first)?.filter(|previous| previous.next == Link::to(&first));
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        let deleted = statement.execute([first, last_part(row)])?;
        // In a damaged page one search finds what another does not.
        if deleted == 0 || matches!(self.place(row), Ok(Place::Occupied { .. })) {
            return Err(Failure::lost_cells());
        }
        if let (Some(previous), Some(next)) = (previous, next) {
            self.relink(&previous.part, next)?;
        }
        Ok(true)
    }

    /// Some records in the order of their row keys. Where the table is damaged the page ends, and says so, and the next
    /// one begins where the table can be read again. Each page begins after the one before it, so a listing ends.
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
            let stop = match cells.next().map_err(Failure::from) {
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
                run.end_at(Link::END);
                (None, None)
            }
            Stop::Unreadable(failure) => {
                let end = run.end.as_deref().unwrap_or_else(|| cursor.key());
                (self.readable_after(end)?.map(Cursor::From), Some(failure))
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

    /// The cell before this one, if it is whole.
    fn previous(&self, part: &Part) -> Result<Option<Neighbor>> {
        self.neighbor("SELECT part, NULL, next FROM cells WHERE part < ?1 ORDER BY part DESC LIMIT 1", part)
    }

    fn neighbor(&self, sql: &str, part: &Part) -> Result<Option<Neighbor>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([part])?;
        match cells.next()? {
            Some(row) => Ok(Cell::read(row)?.neighbor()),
            None => Ok(None),
        }
    }

    fn insert(&self, part: &Part, bytes: &[u8], next: Link) -> Result<()> {
        let mut statement = self.connection.prepare_cached("INSERT INTO cells VALUES (?1, ?2, ?3)")?;
        statement.execute(params![part, bytes, next.0])?;
        Ok(())
    }

    /// The first key behind damage, from which reading can go on; `None` if there is none.
    ///
    /// Row keys are spread evenly, so a damaged page is a short stretch of them. Its end is found by doubling and
    /// halving, in at most 128 steps, and then from the other side: the cell that follows a damaged page is in an inner
    /// page, and only a search for its very key, or one that comes from behind, does without the damaged one.
    fn readable_after(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let start = prefix_of(key);
        // What was read of a record is reported already.
        let rest_of_record = last_part(&row_of(key));
        let key = if key.is_empty() { key } else { key.max(&rest_of_record[..]) };
        let mut unreadable = start;
        let mut readable = loop {
            if unreadable == u64::MAX {
                return self.first_before(&[u8::MAX; PART_LEN + 1], key);
            }
            let next = unreadable.saturating_add(unreadable - start + 1);
            if self.is_readable_from(next)? {
                break next;
            }
            unreadable = next;
        };
        while readable - unreadable > 1 {
            let middle = unreadable + (readable - unreadable) / 2;
            if self.is_readable_from(middle)? { readable = middle } else { unreadable = middle }
        }
        let readable = readable.to_be_bytes().to_vec();
        Ok(Some(self.first_before(&readable, key)?.unwrap_or(readable)))
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
        match first.map_err(Failure::from) {
            Ok(in_order) => Ok(in_order.unwrap_or(true)),
            Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The first of the cells that can be read in turn from this end of a stretch towards its beginning.
    fn first_before(&self, end: &[u8], beginning: &[u8]) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT part FROM cells WHERE part < ?1 AND part > ?2 ORDER BY part DESC";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([end, beginning])?;
        let mut first: Option<Vec<u8>> = None;
        loop {
            let part = match cells.next().map_err(Failure::from) {
                Ok(Some(row)) => row.get_ref(0)?.as_blob().unwrap_or_default().to_vec(),
                Ok(None) => return Ok(first),
                Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(first),
                Err(failure) => return Err(failure),
            };
            let before = first.as_deref().unwrap_or(end);
            if part.as_slice() >= before || part.as_slice() <= beginning {
                return Ok(first);
            }
            first = Some(part);
        }
    }

    /// Counts the records, whole or not.
    pub(crate) fn count_records(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM cells WHERE substr(part, 33) = x'00' AND part > ?1";
        Ok(self.connection.query_row(sql, [HEAD], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Reports whether the chain is whole from end to end and each record begins with this prefix. Damage, also a cell
    /// that is no part of a record, proves nothing.
    pub(crate) fn proves_all_begin_with(&self, prefix: &[u8; RECORD_PREFIX_LEN]) -> Result<bool> {
        let sql = "SELECT part, substr(bytes, 1, 5), next FROM cells ORDER BY part";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([])?;
        let mut expected = Link::to(&HEAD);
        let mut last: Option<Part> = None;
        loop {
            let row = match cells.next().map_err(Failure::from) {
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

    /// Fills the empty table from that of format 1, which has this name. Fails as damaged if that table cannot be read
    /// from end to end.
    pub(crate) fn chain_cells_of_format_1(&self, table: &str) -> Result<()> {
        let mut statement = self.connection.prepare(&format!("SELECT part, bytes, NULL FROM {table} ORDER BY part"))?;
        let mut cells = statement.query([])?;
        // A cell is written when its successor is known.
        let mut part = HEAD;
        let mut bytes = vec![0; RECORD_STEP];
        while let Some(row) = cells.next()? {
            let cell = Cell::read(row)?;
            let next = cell.part().filter(|next| **next > part).ok_or_else(Failure::lost_cells)?;
            self.insert(&part, &bytes, Link::to(next))?;
            part = *next;
            bytes = cell.bytes.to_vec();
        }
        self.insert(&part, &bytes, Link::END)
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

/// Why a page ends.
enum Stop {
    /// There are no more cells.
    End,
    /// As many cells were read as a page may have.
    Full,
    Unreadable(Failure),
}

/// The cells of a page as they are read.
#[derive(Default)]
struct Run {
    records: Vec<(RowKey, Joined)>,
    /// The number of cells that were read.
    read: u32,
    /// The successor that the last cell of the chain names.
    expected: Option<Link>,
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
                self.records.push(([0; _], Joined { damaged: true, ..Joined::default() }));
            }
            self.read += 1;
            return None;
        };
        if self.end.as_deref().is_some_and(|end| key <= end) {
            return Some(Stop::Unreadable(Failure::lost_cells()));
        }
        let row = row_of(key);
        let begins = self.records.last().is_none_or(|(last, _)| *last != row);
        if begins && key != HEAD {
            self.begin(cell, row);
        }
        if key == HEAD || self.is_chained {
            self.expected = cell.next;
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
        // A cell that comes before the expected one, or has no proper key, does not belong to the chain.
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
        let is_named = self.parts == 0 || cell.part().map(Link::to) == self.next;
        self.damaged |= !in_turn || !is_named || cell.bytes.len() != RECORD_STEP;
        self.parts += 1;
        self.next = cell.next;
        if !self.damaged {
            self.bytes.extend_from_slice(cell.bytes);
        }
    }

    fn finish(self, row: &RowKey) -> Found {
        let ends = self.next.is_some_and(|next| !next.leads_into(row));
        match self {
            Self { damaged: false, bytes, .. } if ends => Found::Record(bytes),
            _ => Found::Damaged,
        }
    }
}

/// The first 8 bytes of a key, as a number.
fn prefix_of(key: &[u8]) -> u64 {
    key.iter().chain(std::iter::repeat(&0)).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn row_of(key: &[u8]) -> RowKey {
    let mut row = [0; _];
    for (byte, value) in row.iter_mut().zip(key) {
        *byte = *value;
    }
    row
}

/// The key of a cell; numbers that no record has are 255.
fn part_of(row: &RowKey, number: usize) -> Part {
    let mut part = [u8::try_from(number).unwrap_or(u8::MAX); _];
    part[..row.len()].copy_from_slice(row);
    part
}

fn last_part(row: &RowKey) -> Part {
    part_of(row, usize::from(u8::MAX))
}
