//! A reader for the parts of SQLite's pages that are damaged
//! (<https://sqlite.org/fileformat2.html>).

use std::ops::Range;

pub(crate) const PAGE_LEN: usize = 4096;
pub(crate) const FILE_HEADER_LEN: usize = 100;

const INNER_INDEX: u8 = 0x02;
const INNER_TABLE: u8 = 0x05;
const LEAF_INDEX: u8 = 0x0a;
const LEAF_TABLE: u8 = 0x0d;

/// The pages of a store by kind. A page is identified by its index, its SQLite number minus one.
pub(crate) struct Pages {
    pub(crate) count: usize,
    /// The leaves of the table `cells`.
    pub(crate) leaves: Vec<usize>,
    /// The inner pages of the table `cells`, with its root.
    pub(crate) inner: Vec<usize>,
    /// The page of the table `keyring`.
    pub(crate) keyring: usize,
    /// The pages of the free list that list other pages.
    pub(crate) free_trunks: Vec<usize>,
    /// The pages of the free list that are listed by others.
    pub(crate) free_leaves: Vec<usize>,
}

impl Pages {
    /// The root page of `cells`. It is created right after the schema's page and is never moved.
    pub(crate) const ROOT: usize = 1;
    pub(crate) const SCHEMA: usize = 0;

    pub(crate) fn read(file: &[u8]) -> Self {
        let count = file.len() / PAGE_LEN;
        let of_type = |kind| (1..count).filter(|page| file[page * PAGE_LEN] == kind).collect::<Vec<_>>();
        let keyring = of_type(LEAF_TABLE);
        assert_eq!(keyring.len(), 1, "the keyring has one page");
        let mut free_trunks = Vec::new();
        let mut free_leaves = Vec::new();
        let mut trunk = number_at(file, 32);
        while trunk != 0 {
            let start = (trunk - 1) * PAGE_LEN;
            free_trunks.push(trunk - 1);
            free_leaves.extend((0..number_at(file, start + 4)).map(|leaf| number_at(file, start + 8 + 4 * leaf) - 1));
            trunk = number_at(file, start);
        }
        let inner = of_type(INNER_INDEX);
        assert!(inner.contains(&Self::ROOT), "the store is large enough for inner pages");
        Self { count, leaves: of_type(LEAF_INDEX), inner, keyring: keyring[0], free_trunks, free_leaves }
    }

    /// Returns the pages that have cells.
    pub(crate) fn with_cells(&self) -> Vec<usize> {
        [self.leaves.as_slice(), &self.inner, &[self.keyring, Self::SCHEMA]].concat()
    }

    /// Returns the pages of the table `cells`.
    pub(crate) fn of_cells(&self) -> Vec<usize> {
        [self.leaves.as_slice(), &self.inner].concat()
    }

    pub(crate) fn free(&self) -> Vec<usize> {
        [self.free_trunks.as_slice(), &self.free_leaves].concat()
    }
}

/// A cell of a page, by its offsets in the file.
pub(crate) struct Cell {
    /// The child pointer (inner pages), the payload length, the rowid (tables), and the record
    /// header.
    pub(crate) head: Range<usize>,
    /// The values of the columns.
    pub(crate) body: Range<usize>,
}

/// The offset of a page's header in the file.
pub(crate) fn header(page: usize) -> usize {
    page * PAGE_LEN + if page == 0 { FILE_HEADER_LEN } else { 0 }
}

pub(crate) fn page(page: usize) -> Range<usize> {
    page * PAGE_LEN..(page + 1) * PAGE_LEN
}

pub(crate) fn cell_count(file: &[u8], page: usize) -> usize {
    short_at(file, header(page) + 3)
}

/// The cell pointers of a page, two bytes each.
pub(crate) fn cell_pointers(file: &[u8], page: usize) -> Range<usize> {
    let start = header(page) + if is_inner(file, page) { 12 } else { 8 };
    start..start + 2 * cell_count(file, page)
}

/// The bytes between the cell pointers of a page and its cells.
pub(crate) fn unallocated(file: &[u8], page: usize) -> Range<usize> {
    cell_pointers(file, page).end..page * PAGE_LEN + short_at(file, header(page) + 5)
}

pub(crate) fn cells(file: &[u8], page: usize) -> Vec<Cell> {
    let cell = |pointer| {
        let start = page * PAGE_LEN + short_at(file, pointer);
        let mut at = start + if is_inner(file, page) { 4 } else { 0 };
        let payload_len = varint(file, &mut at);
        if matches!(file[header(page)], LEAF_TABLE | INNER_TABLE) {
            varint(file, &mut at);
        }
        let payload = at;
        let record_header_len = varint(file, &mut at);
        let body = payload + record_header_len;
        Cell { head: start..body, body: body..payload + payload_len }
    };
    cell_pointers(file, page).step_by(2).map(cell).collect()
}

/// The offsets of the child pointers of an inner page, four bytes each.
pub(crate) fn child_pointers(file: &[u8], page: usize) -> Vec<usize> {
    let left = cell_pointers(file, page).step_by(2).map(|pointer| page * PAGE_LEN + short_at(file, pointer));
    left.chain([header(page) + 8]).collect()
}

fn is_inner(file: &[u8], page: usize) -> bool {
    matches!(file[header(page)], INNER_INDEX | INNER_TABLE)
}

fn short_at(file: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([file[at], file[at + 1]]))
}

pub(crate) fn number_at(file: &[u8], at: usize) -> usize {
    let bytes = file[at..at + 4].try_into().unwrap();
    usize::try_from(u32::from_be_bytes(bytes)).unwrap()
}

/// Reads a number of SQLite's variable length, of fewer than nine bytes.
fn varint(file: &[u8], at: &mut usize) -> usize {
    let mut number = 0;
    loop {
        let byte = file[*at];
        *at += 1;
        number = number << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return number;
        }
    }
}
