//! The table of cells, which holds the records. FORMAT.md, "cells", is the specification.
//!
//! A record is cut into parts, and each part is stored in a cell. The cells form a chain in the
//! order of their row keys: each one names its successor. If the cell before a record's place names
//! a successor after that place, this proves that the record does not exist, as NSEC records do in
//! DNSSEC (RFC 4034, section 4).

use keystead_sealing::{RECORD_STEP, RowKey, SealedRecord};
use rusqlite::{Row, Rows, params};

use crate::database::Database;
use crate::error::{FileError, Result};

mod pages;

pub(crate) use pages::{Cursor, Page};

/// The largest number of parts that a record has.
const MAX_PARTS: usize = 13;

const PART_LEN: usize = RowKey::LEN + 1;

/// The key of a cell: a row key, and the number of a part.
pub(crate) type Part = [u8; PART_LEN];

/// The key of the first cell, the head, which belongs to no record. No id has a row key of zeros.
const HEAD: Part = [0; PART_LEN];

/// The name of a cell's successor: the first 8 bytes of its row key, and the number of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link([u8; Self::LEN]);

impl Link {
    const PREFIX_LEN: usize = 8;
    const LEN: usize = Self::PREFIX_LEN + 1;

    const CHECKSUM_LEN: usize = 8;
    const COLUMN_LEN: usize = Self::LEN + Self::CHECKSUM_LEN;

    /// The link of the last cell.
    const END: Self = Self([u8::MAX; Self::LEN]);

    /// Returns the column `next` of the cell with this key: the link, and a checksum of the key and
    /// the link.
    ///
    /// If half of a page was overwritten with half of another one, a cell may begin as one cell and
    /// end as another. The checksum of such a cell does not match.
    fn column(self, part: &Part) -> [u8; Self::COLUMN_LEN] {
        let mut column = [0; Self::COLUMN_LEN];
        column[..Self::LEN].copy_from_slice(&self.0);
        column[Self::LEN..].copy_from_slice(&self.checksum(part));
        column
    }

    /// Returns the link in the column `next`; `None` if its checksum does not match this key.
    fn from_column(part: &Part, column: &[u8]) -> Option<Self> {
        let (link, checksum) = column.split_first_chunk()?;
        let link = Self(*link);
        (checksum == link.checksum(part)).then_some(link)
    }

    /// Returns the 64-bit FNV-1a hash (<http://www.isthe.com/chongo/tech/comp/fnv/>) of the cell's
    /// key and the link. It detects damage, but not deliberate changes.
    fn checksum(self, part: &Part) -> [u8; Self::CHECKSUM_LEN] {
        let bytes = part.iter().chain(&self.0);
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        bytes.fold(0xCBF2_9CE4_8422_2325, mix).to_be_bytes()
    }

    /// Returns the link to the cell with this key.
    fn to(part: &Part) -> Self {
        let mut link = [part[PART_LEN - 1]; Self::LEN];
        link[..Self::PREFIX_LEN].copy_from_slice(&part[..Self::PREFIX_LEN]);
        Self(link)
    }

    /// Returns the first bytes of the successor's row key.
    fn prefix(&self) -> &[u8] {
        &self.0[..Self::PREFIX_LEN]
    }

    /// Reports whether the successor certainly comes after this row.
    pub(crate) fn is_after(&self, row: &RowKey) -> bool {
        self.prefix() > &row.as_bytes()[..Self::PREFIX_LEN]
    }

    /// Reports whether the successor may be a cell of this row.
    fn leads_into(&self, row: &RowKey) -> bool {
        self.prefix() == &row.as_bytes()[..Self::PREFIX_LEN]
    }
}

/// The content of a row.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is provably no record.
    Nothing,
    /// The joined parts of a record, still sealed.
    Record(Vec<u8>),
    /// The cells are not those of a record.
    Damaged,
}

/// The place of a row in the chain, for a writer.
pub(crate) enum Place {
    /// There is provably no record. One can be inserted between `previous` and `next`.
    Vacant { previous: Part, next: Link },
    /// There is a record, intact or not.
    Occupied {
        /// The successor of the record; `None` if the last cell of the record is damaged.
        next: Option<Link>,
        /// The number of parts, if the last cell of the record is intact.
        parts: usize,
    },
}

/// A cell as it is in the table.
struct Cell<'a> {
    /// The column `part`; `None` if it is not a blob.
    key: Option<&'a [u8]>,
    /// The column `bytes`; empty if it is not a blob.
    bytes: &'a [u8],
    /// The link in the column `next`; `None` if it is damaged.
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

    /// Returns the cell's key, if it has the right length.
    fn part(&self) -> Option<&'a Part> {
        self.key?.try_into().ok()
    }

    /// Returns the cell's key and its successor, if both are intact.
    fn neighbor(&self) -> Option<Neighbor> {
        Some(Neighbor { part: *self.part()?, next: self.next? })
    }

    /// Reports whether the cell's key begins with this row key.
    fn is_of(&self, row: &RowKey) -> bool {
        self.key.is_some_and(|key| key.starts_with(row.as_bytes()))
    }
}

/// The key of a cell, and its successor.
#[derive(Clone, Copy)]
struct Neighbor {
    part: Part,
    next: Link,
}

impl Neighbor {
    /// Reports whether this cell, the last one that is not above a row, proves that the row has no
    /// record. `before` is the cell before this one.
    fn proves_absence(&self, row: &RowKey, before: Option<Self>) -> bool {
        // Only these bytes are compared, and they must differ: if a later byte of the key is
        // damaged, the cell may belong to the record itself.
        let is_below = self.part[..Link::PREFIX_LEN] < row.as_bytes()[..Link::PREFIX_LEN];
        let skips = self.next.is_after(row);
        // If this cell's own key is damaged, the cell before it names another one.
        let is_named = match before {
            Some(before) => before.part < self.part && before.next == Link::to(&self.part),
            None => self.part == HEAD,
        };
        is_below && skips && is_named
    }
}

/// Returns the predecessor of a row if it proves that the row has no record. Fails otherwise. The
/// next item of `cells` must be the cell before the predecessor.
fn prove_absence(row: &RowKey, predecessor: Option<Neighbor>, cells: &mut Rows<'_>) -> Result<Neighbor> {
    let predecessor = predecessor.ok_or_else(FileError::lost_cells)?;
    let before = match cells.next()? {
        Some(before) => Some(Cell::read(before)?.neighbor().ok_or_else(FileError::lost_cells)?),
        None => None,
    };
    if predecessor.proves_absence(row, before) { Ok(predecessor) } else { Err(FileError::lost_cells()) }
}

/// A record that is being read, from its last part to its first.
struct PartialRecord<'a> {
    row: &'a RowKey,
    bytes: Vec<u8>,
    /// The number of parts that have not been read.
    missing: usize,
}

impl<'a> PartialRecord<'a> {
    /// Begins with the last cell of a row. Returns `None` if this is not the last part of a record.
    fn new(row: &'a RowKey, cell: &Cell<'_>) -> Option<Self> {
        let last = usize::from(cell.part()?[PART_LEN - 1]);
        // A damaged link says nothing about the record: its seal proves whether it is intact.
        if last >= MAX_PARTS || cell.next.is_some_and(|next| next.leads_into(row)) {
            return None;
        }
        let mut record = Self { row, bytes: vec![0; (last + 1) * RECORD_STEP], missing: last + 1 };
        record.add(cell).then_some(record)
    }

    /// Adds the part before those that have been read. Returns false if the cell is not that part.
    fn add(&mut self, cell: &Cell<'_>) -> bool {
        let number = self.missing - 1;
        let is_last = (number + 1) * RECORD_STEP == self.bytes.len();
        let follower = Link::to(&part_of(self.row, number + 1));
        let leads_on = is_last || cell.next.is_none_or(|next| next == follower);
        let is_part = cell.part() == Some(&part_of(self.row, number));
        if !is_part || !leads_on || cell.bytes.len() != RECORD_STEP {
            return false;
        }
        self.bytes[number * RECORD_STEP..][..RECORD_STEP].copy_from_slice(cell.bytes);
        self.missing = number;
        true
    }
}

impl Database {
    /// Inserts the head into an empty table.
    pub(crate) fn insert_head(&self) -> Result<()> {
        self.insert(&HEAD, &[0; RECORD_STEP], Link::END)
    }

    /// Returns the record of a row. Fails if there is none and the chain does not prove that.
    pub(crate) fn record(&self, row: &RowKey) -> Result<Found> {
        let sql = "SELECT part, bytes, next FROM cells WHERE part <= ?1 ORDER BY part DESC";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([last_part(row)])?;
        let Some(first) = cells.next()? else { return Err(FileError::lost_cells()) };
        let cell = Cell::read(first)?;
        if !cell.is_of(row) {
            let predecessor = cell.neighbor();
            return prove_absence(row, predecessor, &mut cells).map(|_| Found::Nothing);
        }
        let Some(mut record) = PartialRecord::new(row, &cell) else { return Ok(Found::Damaged) };
        while record.missing > 0 {
            let Some(earlier) = cells.next()? else { return Ok(Found::Damaged) };
            if !record.add(&Cell::read(earlier)?) {
                return Ok(Found::Damaged);
            }
        }
        Ok(Found::Record(record.bytes))
    }

    /// Returns the place of a row. Fails if there is no record and the chain does not prove that.
    pub(crate) fn place(&self, row: &RowKey) -> Result<Place> {
        let sql = "SELECT part, NULL, next FROM cells WHERE part <= ?1 ORDER BY part DESC LIMIT 2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([last_part(row)])?;
        let Some(first) = cells.next()? else { return Err(FileError::lost_cells()) };
        let cell = Cell::read(first)?;
        if cell.is_of(row) {
            let next = cell.next.filter(|next| cell.part().is_some() && !next.leads_into(row));
            let parts = cell.part().map_or(0, |part| usize::from(part[PART_LEN - 1]) + 1);
            return Ok(Place::Occupied { next, parts });
        }
        let predecessor = cell.neighbor();
        let previous = prove_absence(row, predecessor, &mut cells)?;
        Ok(Place::Vacant { previous: previous.part, next: previous.next })
    }

    /// Inserts a record into a vacant place.
    pub(crate) fn insert_record(&self, row: &RowKey, record: &[u8], previous: &Part, next: Link) -> Result<()> {
        self.append_record(row, record, next)?;
        self.relink(previous, Link::to(&part_of(row, 0)))
    }

    /// Inserts records, in the order of their rows, between `previous` and `next`. Returns the key
    /// of the last inserted cell.
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

    /// Inserts the cells of a record without changing the link of its predecessor.
    fn append_record(&self, row: &RowKey, record: &[u8], next: Link) -> Result<()> {
        let count = record.len() / RECORD_STEP;
        for (number, bytes) in record.chunks_exact(RECORD_STEP).enumerate() {
            let next = if number + 1 == count { next } else { Link::to(&part_of(row, number + 1)) };
            self.insert(&part_of(row, number), bytes, next)?;
        }
        Ok(())
    }

    /// Gives a cell another successor.
    pub(crate) fn relink(&self, part: &Part, next: Link) -> Result<()> {
        let mut statement = self.connection.prepare_cached("UPDATE cells SET next = ?2 WHERE part = ?1")?;
        if statement.execute(params![part, next.column(part)])? == 1 { Ok(()) } else { Err(FileError::lost_cells()) }
    }

    /// Writes a record over the present one, which has this number of parts and this successor.
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

    /// Deletes a damaged record and returns whether there was one.
    ///
    /// The row may also stand for missing records, of whose row keys the chain knows only the first
    /// bytes. In that case the gap in the chain is closed, and the missing records are given up.
    pub(crate) fn delete_damaged_record(&self, row: &RowKey) -> Result<bool> {
        let first = part_of(row, 0);
        if first == HEAD {
            // This row stands for cells whose keys are of another type. They have no row.
            return Ok(false);
        }
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        let deleted = statement.execute([first, last_part(row)])? > 0;
        let mut is_closed = false;
        let mut part = first;
        // If the row stands for what is missing after a cell with a damaged link, the other cells
        // of that cell's record may have damaged links, too.
        for _ in 0..MAX_PARTS {
            let Some((previous, next)) = self.part_before(&part)? else { break };
            let Some(follower) = self.link_after(&previous)? else { break };
            let is_gap = match next {
                Some(next) => next.leads_into(row) && next != follower,
                // The row stands for the records that are missing after a damaged link.
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

    /// Returns the key of the cell before this one, and its link if that is intact. Returns `None`
    /// if there is no such cell or its key is damaged.
    fn part_before(&self, part: &Part) -> Result<Option<(Part, Option<Link>)>> {
        let sql = "SELECT part, NULL, next FROM cells WHERE part < ?1 ORDER BY part DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([part])?;
        let Some(row) = cells.next()? else { return Ok(None) };
        let cell = Cell::read(row)?;
        Ok(cell.part().map(|part| (*part, cell.next)))
    }

    /// Returns the link to the cell after this one; `None` if that cell's key is damaged.
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
    /// The links are joined only if the chain is intact on both sides of the record. A gap beside
    /// the record must stay a gap, so that it is still reported.
    pub(crate) fn delete_record(&self, row: &RowKey) -> Result<bool> {
        let Place::Occupied { next, .. } = self.place(row)? else { return Ok(false) };
        let first = part_of(row, 0);
        let previous = self.previous(&first)?.filter(|previous| previous.next == Link::to(&first));
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        let deleted = statement.execute([first, last_part(row)])?;
        // In a damaged page, one search may find a cell that another search does not.
        if deleted == 0 || matches!(self.place(row), Ok(Place::Occupied { .. })) {
            return Err(FileError::lost_cells());
        }
        if let (Some(previous), Some(next)) = (previous, next) {
            self.relink(&previous.part, next)?;
        }
        Ok(true)
    }

    /// Returns the cell before this one, if it is intact.
    fn previous(&self, part: &Part) -> Result<Option<Neighbor>> {
        self.neighbor("SELECT part, NULL, next FROM cells WHERE part < ?1 ORDER BY part DESC LIMIT 1", part)
    }

    /// Returns the first cell that this query finds, if it is intact.
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

    /// Copies all cells from the table of format 1, which has this name, into the empty table.
    /// Fails if the table of format 1 cannot be read from end to end.
    pub(crate) fn chain_cells_of_format_1(&self, table: &str) -> Result<()> {
        let mut statement = self.connection.prepare(&format!("SELECT part, bytes, NULL FROM {table} ORDER BY part"))?;
        let mut cells = statement.query([])?;
        // A cell is inserted when its successor is known, so the first one is the head.
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

/// Returns the row key at the beginning of a cell's key.
fn row_of(key: &[u8]) -> RowKey {
    row_with(key, 0)
}

/// Returns the row key that begins with these bytes and continues with `filler`.
fn row_with(beginning: &[u8], filler: u8) -> RowKey {
    let mut row = [filler; RowKey::LEN];
    for (byte, value) in row.iter_mut().zip(beginning) {
        *byte = *value;
    }
    RowKey::from_bytes(row)
}

/// Returns the key of a cell. Numbers above 255 become 255, which no part of a record has.
fn part_of(row: &RowKey, number: usize) -> Part {
    let mut part = [u8::try_from(number).unwrap_or(u8::MAX); _];
    part[..RowKey::LEN].copy_from_slice(row.as_bytes());
    part
}

/// Returns the highest key that a cell of this row can have.
fn last_part(row: &RowKey) -> Part {
    part_of(row, usize::from(u8::MAX))
}
