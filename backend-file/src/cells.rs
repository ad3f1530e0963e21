//! The table of cells: records cut into parts, in the order of their row keys, each naming its
//! successor. FORMAT.md, "cells", is the specification.
//!
//! A missing record is proved missing by its predecessor, as NSEC records do it in DNSSEC (RFC
//! 4034, section 4).

use keystead_sealing::{RECORD_STEP, RowKey, SealedRecord};
use rusqlite::{Row, params};

use crate::database::Database;
use crate::error::{FileError, Result};

mod pages;

pub(crate) use pages::{Cursor, Page};

/// No valid record has more parts.
const MAX_PARTS: usize = 13;

const PART_LEN: usize = RowKey::LEN + 1;

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

    const CHECKSUM_LEN: usize = 8;
    const COLUMN_LEN: usize = Self::LEN + Self::CHECKSUM_LEN;

    /// The successor of the last cell.
    const END: Self = Self([u8::MAX; Self::LEN]);

    /// The column `next` of the cell with this key: the link, and the checksum that binds the two. A
    /// page that is half another one has cells whose beginning and end are of two cells.
    fn column(self, part: &Part) -> [u8; Self::COLUMN_LEN] {
        let mut column = [0; Self::COLUMN_LEN];
        column[..Self::LEN].copy_from_slice(&self.0);
        column[Self::LEN..].copy_from_slice(&self.checksum(part));
        column
    }

    /// `None` if the column does not belong to the key.
    fn from_column(part: &Part, column: &[u8]) -> Option<Self> {
        let (link, checksum) = column.split_first_chunk()?;
        let link = Self(*link);
        (checksum == link.checksum(part)).then_some(link)
    }

    /// FNV-1a with 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>) of the cell's key and the link.
    /// It is to notice damage; nothing hides from it who can write the file.
    fn checksum(self, part: &Part) -> [u8; Self::CHECKSUM_LEN] {
        let bytes = part.iter().chain(&self.0);
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        bytes.fold(0xCBF2_9CE4_8422_2325, mix).to_be_bytes()
    }

    fn to(part: &Part) -> Self {
        let mut link = [part[PART_LEN - 1]; Self::LEN];
        link[..Self::PREFIX_LEN].copy_from_slice(&part[..Self::PREFIX_LEN]);
        Self(link)
    }

    /// The beginning of the successor's row key.
    fn prefix(&self) -> &[u8] {
        &self.0[..Self::PREFIX_LEN]
    }

    /// Reports whether a row certainly comes before the successor.
    pub(crate) fn is_after(&self, row: &RowKey) -> bool {
        self.prefix() > &row.as_bytes()[..Self::PREFIX_LEN]
    }

    fn leads_into(&self, row: &RowKey) -> bool {
        self.prefix() == &row.as_bytes()[..Self::PREFIX_LEN]
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
        /// The successor of the record; `None` if its end is damaged.
        next: Option<Link>,
        /// The number of its parts, if its end is whole.
        parts: usize,
    },
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
        let key = row.get_ref(0)?.as_blob().ok();
        let bytes = row.get_ref(1)?.as_blob().unwrap_or_default();
        let column = row.get_ref(2)?.as_blob().unwrap_or_default();
        let part = key.and_then(|key| key.try_into().ok());
        Ok(Self { key, bytes, next: part.and_then(|part| Link::from_column(part, column)) })
    }

    fn part(&self) -> Option<&'a Part> {
        self.key?.try_into().ok()
    }

    /// The cell's key and its successor, if both are whole.
    fn neighbor(&self) -> Option<Neighbor> {
        Some(Neighbor { part: *self.part()?, next: self.next? })
    }

    fn is_of(&self, row: &RowKey) -> bool {
        self.key.is_some_and(|key| key.starts_with(row.as_bytes()))
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
        let is_below = self.part[..Link::PREFIX_LEN] < row.as_bytes()[..Link::PREFIX_LEN];
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
        let Some(first) = cells.next()? else { return Err(FileError::lost_cells()) };
        let mut cell = Cell::read(first)?;
        if !cell.is_of(row) {
            let previous = cell.neighbor();
            let before = match cells.next()? {
                Some(before) => Some(Cell::read(before)?.neighbor().ok_or_else(FileError::lost_cells)?),
                None => None,
            };
            let proved = previous.is_some_and(|previous| previous.proves_absence(row, before));
            return if proved { Ok(Found::Nothing) } else { Err(FileError::lost_cells()) };
        }
        // From its last part to its first.
        let Some(last) = cell.part().map(|part| usize::from(part[PART_LEN - 1])) else { return Ok(Found::Damaged) };
        // A link that is damaged says nothing about the record, which its seal proves.
        if last >= MAX_PARTS || cell.next.is_some_and(|next| next.leads_into(row)) {
            return Ok(Found::Damaged);
        }
        let mut record = vec![0; (last + 1) * RECORD_STEP];
        for (number, step) in record.chunks_exact_mut(RECORD_STEP).enumerate().rev() {
            if number < last {
                let Some(earlier) = cells.next()? else { return Ok(Found::Damaged) };
                cell = Cell::read(earlier)?;
            }
            let part = part_of(row, number);
            let follower = Link::to(&part_of(row, number + 1));
            let leads_on = number == last || cell.next.is_none_or(|next| next == follower);
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
        let Some(first) = cells.next()? else { return Err(FileError::lost_cells()) };
        let cell = Cell::read(first)?;
        if cell.is_of(row) {
            let next = cell.next.filter(|next| cell.part().is_some() && !next.leads_into(row));
            let parts = cell.part().map_or(0, |part| usize::from(part[PART_LEN - 1]) + 1);
            return Ok(Place::Occupied { next, parts });
        }
        let previous = cell.neighbor().ok_or_else(FileError::lost_cells)?;
        let before = match cells.next()? {
            Some(before) => Some(Cell::read(before)?.neighbor().ok_or_else(FileError::lost_cells)?),
            None => None,
        };
        if !previous.proves_absence(row, before) {
            return Err(FileError::lost_cells());
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
        if statement.execute(params![part, next.column(part)])? == 1 { Ok(()) } else { Err(FileError::lost_cells()) }
    }

    /// Writes a record in the place of another that has this many parts, and this successor.
    pub(crate) fn replace_record(&self, row: &RowKey, record: &[u8], parts: usize, next: Link) -> Result<()> {
        let sql = "INSERT INTO cells VALUES (?1, ?2, ?3) \
                   ON CONFLICT (part) DO UPDATE SET bytes = excluded.bytes, next = excluded.next";
        let mut statement = self.connection.prepare_cached(sql)?;
        let count = record.len() / RECORD_STEP;
        for (number, bytes) in record.chunks_exact(RECORD_STEP).enumerate() {
            let next = if number + 1 == count { next } else { Link::to(&part_of(row, number + 1)) };
            let part = part_of(row, number);
            statement.execute(params![part, bytes, next.column(&part)])?;
        }
        if parts != count {
            let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
            statement.execute([part_of(row, count), last_part(row)])?;
        }
        Ok(())
    }

    /// Deletes a damaged record for good and returns whether it existed. If the row is the
    /// beginning of one that the chain names and that is missing, the chain is closed: what is
    /// missing there is given up.
    pub(crate) fn delete_damaged_record(&self, row: &RowKey) -> Result<bool> {
        let first = part_of(row, 0);
        if first == HEAD {
            // Cells of other types are reported so, and no row leads to them.
            return Ok(false);
        }
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        let deleted = statement.execute([first, last_part(row)])? > 0;
        let mut is_closed = false;
        let mut part = first;
        // Each part of a record has a link.
        for _ in 0..MAX_PARTS {
            let Some((previous, next)) = self.part_before(&part)? else { break };
            let Some(follower) = self.link_after(&previous)? else { break };
            let is_gap = match next {
                Some(next) => next.leads_into(row) && next != follower,
                // The row stands for what is missing behind a damaged link.
                None => Link::to(&previous).leads_into(row),
            };
            if !is_gap {
                break;
            }
            self.relink(&previous, follower)?;
            is_closed = true;
            part = previous;
        }
        Ok(deleted || is_closed)
    }

    /// The cell before this one and its link, if that is whole; `None` if its key is not.
    fn part_before(&self, part: &Part) -> Result<Option<(Part, Option<Link>)>> {
        let sql = "SELECT part, NULL, next FROM cells WHERE part < ?1 ORDER BY part DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([part])?;
        let Some(row) = cells.next()? else { return Ok(None) };
        let cell = Cell::read(row)?;
        Ok(cell.part().map(|part| (*part, cell.next)))
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
    /// The chain is closed over the record only where it is whole on both sides: a gap beside it
    /// stays a gap.
    pub(crate) fn delete_record(&self, row: &RowKey) -> Result<bool> {
        let Place::Occupied { next, .. } = self.place(row)? else { return Ok(false) };
        let first = part_of(row, 0);
        let previous = self.previous(&first)?.filter(|previous| previous.next == Link::to(&first));
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        let deleted = statement.execute([first, last_part(row)])?;
        // In a damaged page one search finds what another does not.
        if deleted == 0 || matches!(self.place(row), Ok(Place::Occupied { .. })) {
            return Err(FileError::lost_cells());
        }
        if let (Some(previous), Some(next)) = (previous, next) {
            self.relink(&previous.part, next)?;
        }
        Ok(true)
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
        statement.execute(params![part, bytes, next.column(part)])?;
        Ok(())
    }

    /// Fills the empty table from that of format 1, which has this name. Fails as damaged if that
    /// table cannot be read from end to end.
    pub(crate) fn chain_cells_of_format_1(&self, table: &str) -> Result<()> {
        let mut statement = self.connection.prepare(&format!("SELECT part, bytes, NULL FROM {table} ORDER BY part"))?;
        let mut cells = statement.query([])?;
        // A cell is written when its successor is known.
        let mut part = HEAD;
        let mut bytes = vec![0; RECORD_STEP];
        while let Some(row) = cells.next()? {
            let cell = Cell::read(row)?;
            let next = cell.part().filter(|next| **next > part).ok_or_else(FileError::lost_cells)?;
            self.insert(&part, &bytes, Link::to(next))?;
            part = *next;
            bytes = cell.bytes.to_vec();
        }
        self.insert(&part, &bytes, Link::END)
    }
}

fn row_of(key: &[u8]) -> RowKey {
    row_with(key, 0)
}

/// The row key that begins with these bytes, filled up with `filler`.
fn row_with(beginning: &[u8], filler: u8) -> RowKey {
    let mut row = [filler; RowKey::LEN];
    for (byte, value) in row.iter_mut().zip(beginning) {
        *byte = *value;
    }
    RowKey::from_bytes(row)
}

/// The key of a cell; numbers that no record has are 255.
fn part_of(row: &RowKey, number: usize) -> Part {
    let mut part = [u8::try_from(number).unwrap_or(u8::MAX); _];
    part[..RowKey::LEN].copy_from_slice(row.as_bytes());
    part
}

fn last_part(row: &RowKey) -> Part {
    part_of(row, usize::from(u8::MAX))
}
