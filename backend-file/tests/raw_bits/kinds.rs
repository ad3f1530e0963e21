//! The kinds of damage. Each damages the bytes of a store's files at a random place.

use std::ops::Range;

use crate::pages::{self, FILE_HEADER_LEN, PAGE_LEN, Pages};
use crate::random::Random;

/// The length of the header of SQLite's log. Frames follow, each with a header and a page.
const LOG_HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 24;
const FRAME_LEN: usize = FRAME_HEADER_LEN + PAGE_LEN;

/// The bytes that a trial damages.
pub(crate) struct Bytes<'a> {
    pub(crate) main: &'a mut Vec<u8>,
    /// Empty in a store that was closed.
    pub(crate) log: &'a mut Vec<u8>,
    /// The pages of the main file as it was.
    pub(crate) pages: &'a Pages,
}

/// A kind of damage.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Does the damage and returns a description.
    pub(crate) damage: fn(Bytes<'_>, &mut Random) -> String,
}

macro_rules! kinds {
    ($($name:ident)*) => { &[$(Kind { name: stringify!($name), damage: $name }),*] };
}

/// One bit of a closed store's file.
pub(crate) const BITS: &[Kind] = kinds! {
    page_header_bit cell_pointer_bit cell_head_bit cell_body_bit free_list_bit file_header_bit keyring_page_bit
    schema_page_bit unallocated_bit any_bit
};

/// Pages of a closed store that were lost, or written to the wrong place.
pub(crate) const PAGES: &[Kind] = kinds! {
    leaf_over_leaf inner_over_leaf leaf_over_inner inner_over_inner leaves_swapped half_of_leaf_over_leaf free_over_leaf
    page_zeroed sector_zeroed file_cut_at_page file_cut_anywhere file_lengthened
};

/// Wrong counts and pointers in the pages of a closed store that SQLite follows.
pub(crate) const STRUCTURE: &[Kind] = kinds! {
    leaf_cell_count_lowered inner_cell_count_lowered children_swapped child_is_itself child_is_root child_is_any_page
    cell_pointer_repeated cell_pointers_swapped free_list_names_pages_in_use
};

/// The log of a store that was not closed.
pub(crate) const LOG: &[Kind] = kinds! { log_header_bit frame_header_bit frame_page_bit log_cut log_sector_zeroed };

/// The main file beside a log that is whole.
pub(crate) const BESIDE_LOG: &[Kind] = kinds! { any_bit leaf_over_leaf leaf_cell_count_lowered page_zeroed };

/// The log of another store, beside a closed one.
pub(crate) const FOREIGN_LOG: &[Kind] = kinds! { foreign_log };

/// All kinds, for the check of a name.
pub(crate) const ALL: &[&[Kind]] = &[BITS, PAGES, STRUCTURE, LOG, BESIDE_LOG, FOREIGN_LOG];

fn flip(bytes: &mut [u8], range: Range<usize>, random: &mut Random) -> String {
    let at = range.start + random.below(range.len());
    let bit = random.below(8);
    bytes[at] ^= 1 << bit;
    format!("bit {bit} of byte {} of page {} (offset {at})", at % PAGE_LEN, at / PAGE_LEN + 1)
}

fn page_header_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let header = pages::header(random.pick(&bytes.pages.with_cells()));
    flip(bytes.main, header..header + 12, random)
}

fn cell_pointer_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let pointers = pages::cell_pointers(bytes.main, random.pick(&bytes.pages.with_cells()));
    flip(bytes.main, pointers, random)
}

fn cell_head_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let mut cells = pages::cells(bytes.main, random.pick(&bytes.pages.of_cells()));
    let cell = cells.swap_remove(random.below(cells.len()));
    flip(bytes.main, cell.head, random)
}

fn cell_body_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let mut cells = pages::cells(bytes.main, random.pick(&bytes.pages.of_cells()));
    let cell = cells.swap_remove(random.below(cells.len()));
    flip(bytes.main, cell.body, random)
}

fn free_list_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    if random.once_in(4) {
        return flip(bytes.main, pages::page(random.pick(&bytes.pages.free())), random);
    }
    let start = pages::header(random.pick(&bytes.pages.free_trunks));
    let len = 8 + 4 * pages::number_at(bytes.main, start + 4);
    flip(bytes.main, start..start + len, random)
}

fn file_header_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    flip(bytes.main, 0..FILE_HEADER_LEN, random)
}

/// Flips a bit of the part of a page that SQLite uses.
fn used_bit(bytes: Bytes<'_>, page: usize, random: &mut Random) -> String {
    let header = pages::header(page);
    let unused = pages::unallocated(bytes.main, page);
    let used = [header..unused.start, unused.end..pages::page(page).end];
    flip(bytes.main, random.pick(&used), random)
}

fn keyring_page_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let page = bytes.pages.keyring;
    used_bit(bytes, page, random)
}

fn schema_page_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    used_bit(bytes, Pages::SCHEMA, random)
}

fn unallocated_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let unallocated = bytes.pages.with_cells().into_iter().map(|page| pages::unallocated(bytes.main, page));
    let unallocated: Vec<_> = unallocated.filter(|range| !range.is_empty()).collect();
    flip(bytes.main, random.pick(&unallocated), random)
}

fn any_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let all = 0..bytes.main.len();
    flip(bytes.main, all, random)
}

/// Copies one page over another.
fn copy(bytes: Bytes<'_>, from: &[usize], over: &[usize], random: &mut Random) -> String {
    let from = random.pick(from);
    let over: Vec<usize> = over.iter().copied().filter(|over| *over != from).collect();
    let over = random.pick(&over);
    bytes.main.copy_within(pages::page(from), over * PAGE_LEN);
    format!("page {} over page {}", from + 1, over + 1)
}

fn leaf_over_leaf(bytes: Bytes<'_>, random: &mut Random) -> String {
    let leaves = &bytes.pages.leaves;
    copy(bytes, leaves, leaves, random)
}

fn inner_over_leaf(bytes: Bytes<'_>, random: &mut Random) -> String {
    let pages = bytes.pages;
    copy(bytes, &pages.inner, &pages.leaves, random)
}

fn leaf_over_inner(bytes: Bytes<'_>, random: &mut Random) -> String {
    let pages = bytes.pages;
    copy(bytes, &pages.leaves, &pages.inner, random)
}

fn inner_over_inner(bytes: Bytes<'_>, random: &mut Random) -> String {
    let inner = &bytes.pages.inner;
    copy(bytes, inner, inner, random)
}

fn free_over_leaf(bytes: Bytes<'_>, random: &mut Random) -> String {
    let pages = bytes.pages;
    copy(bytes, &pages.free(), &pages.leaves, random)
}

fn leaves_swapped(bytes: Bytes<'_>, random: &mut Random) -> String {
    let one = random.pick(&bytes.pages.leaves);
    let other = random.pick(&bytes.pages.leaves);
    let kept = bytes.main[pages::page(one)].to_vec();
    bytes.main.copy_within(pages::page(other), one * PAGE_LEN);
    bytes.main[pages::page(other)].copy_from_slice(&kept);
    format!("page {} swapped with page {}", one + 1, other + 1)
}

/// Copies the first sectors of a page over those of another, as an interrupted misplaced write
/// does.
fn half_of_leaf_over_leaf(bytes: Bytes<'_>, random: &mut Random) -> String {
    let from = random.pick(&bytes.pages.leaves);
    let over = random.pick(&bytes.pages.leaves);
    let len = 512 * (1 + random.below(7));
    let start = from * PAGE_LEN;
    bytes.main.copy_within(start..start + len, over * PAGE_LEN);
    format!("the first {len} bytes of page {} over those of page {}", from + 1, over + 1)
}

fn page_zeroed(bytes: Bytes<'_>, random: &mut Random) -> String {
    let page = random.below(bytes.pages.count);
    bytes.main[pages::page(page)].fill(0);
    format!("page {} zeroed", page + 1)
}

fn sector_zeroed(bytes: Bytes<'_>, random: &mut Random) -> String {
    zero_sector(bytes.main, random)
}

/// Zeroes 512 bytes, which begin at a sector in three of four trials.
fn zero_sector(bytes: &mut [u8], random: &mut Random) -> String {
    let start = random.below(bytes.len() - 512);
    let start = if random.once_in(4) { start } else { start / 512 * 512 };
    bytes[start..start + 512].fill(0);
    format!("512 bytes zeroed at offset {start}")
}

fn file_cut_at_page(bytes: Bytes<'_>, random: &mut Random) -> String {
    let pages = random.below(bytes.pages.count);
    bytes.main.truncate(pages * PAGE_LEN);
    format!("the file cut after {pages} pages")
}

fn file_cut_anywhere(bytes: Bytes<'_>, random: &mut Random) -> String {
    let len = random.below(bytes.main.len());
    bytes.main.truncate(len);
    format!("the file cut after {len} bytes")
}

fn file_lengthened(bytes: Bytes<'_>, random: &mut Random) -> String {
    let len = 1 + random.below(4 * PAGE_LEN);
    bytes.main.extend((0..len).map(|_| random.next().to_be_bytes()[0]));
    format!("{len} random bytes at the end of the file")
}

/// Clears a bit of a page's cell count, so that SQLite sees fewer cells.
fn lower_cell_count(bytes: &mut [u8], page: usize, random: &mut Random) -> String {
    let count = pages::cell_count(bytes, page);
    let set: Vec<u32> = (0..16).filter(|bit| count & 1 << bit != 0).collect();
    let lowered = count & !(1 << random.pick(&set));
    let at = pages::header(page) + 3;
    bytes[at..at + 2].copy_from_slice(&u16::try_from(lowered).unwrap().to_be_bytes());
    format!("{lowered} cells instead of {count} in page {}", page + 1)
}

fn leaf_cell_count_lowered(bytes: Bytes<'_>, random: &mut Random) -> String {
    let page = random.pick(&bytes.pages.leaves);
    lower_cell_count(bytes.main, page, random)
}

fn inner_cell_count_lowered(bytes: Bytes<'_>, random: &mut Random) -> String {
    let page = random.pick(&bytes.pages.inner);
    lower_cell_count(bytes.main, page, random)
}

/// Swaps two runs of the same length.
fn swap(bytes: &mut [u8], one: usize, other: usize, len: usize) {
    let kept = bytes[one..one + len].to_vec();
    bytes.copy_within(other..other + len, one);
    bytes[other..other + len].copy_from_slice(&kept);
}

fn children_swapped(bytes: Bytes<'_>, random: &mut Random) -> String {
    let page = random.pick(&bytes.pages.inner);
    let children = pages::child_pointers(bytes.main, page);
    let one = random.below(children.len());
    let other = (one + 1 + random.below(children.len() - 1)) % children.len();
    swap(bytes.main, children[one], children[other], 4);
    format!("children {one} and {other} of page {} swapped", page + 1)
}

/// Makes a child pointer of an inner page point to what `target` makes of that page.
fn redirect(bytes: Bytes<'_>, random: &mut Random, target: impl FnOnce(usize, &mut Random) -> usize) -> String {
    let page = random.pick(&bytes.pages.inner);
    let pointer = random.pick(&pages::child_pointers(bytes.main, page));
    let number = target(page, random) + 1;
    bytes.main[pointer..pointer + 4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    format!("a child of page {} is page {number} (offset {pointer})", page + 1)
}

fn child_is_itself(bytes: Bytes<'_>, random: &mut Random) -> String {
    redirect(bytes, random, |page, _| page)
}

fn child_is_root(bytes: Bytes<'_>, random: &mut Random) -> String {
    redirect(bytes, random, |_, _| Pages::ROOT)
}

fn child_is_any_page(bytes: Bytes<'_>, random: &mut Random) -> String {
    let count = bytes.pages.count;
    redirect(bytes, random, |_, random| random.below(count))
}

/// Returns the offsets of two cell pointers of the same page of `cells`.
fn two_cell_pointers(bytes: &Bytes<'_>, random: &mut Random) -> (usize, usize) {
    let mut pages = bytes.pages.of_cells();
    pages.retain(|page| pages::cell_count(bytes.main, *page) > 1);
    let pointers = pages::cell_pointers(bytes.main, random.pick(&pages));
    let count = pointers.len() / 2;
    let one = random.below(count);
    let other = (one + 1 + random.below(count - 1)) % count;
    (pointers.start + 2 * one, pointers.start + 2 * other)
}

fn cell_pointer_repeated(bytes: Bytes<'_>, random: &mut Random) -> String {
    let (one, other) = two_cell_pointers(&bytes, random);
    bytes.main.copy_within(one..one + 2, other);
    format!("the cell pointer at offset {one} over the one at {other}")
}

fn cell_pointers_swapped(bytes: Bytes<'_>, random: &mut Random) -> String {
    let (one, other) = two_cell_pointers(&bytes, random);
    swap(bytes.main, one, other, 2);
    format!("the cell pointers at offsets {one} and {other} swapped")
}

/// Fills the free list with leaves that are in use. SQLite allocates pages from it and writes to
/// them.
fn free_list_names_pages_in_use(bytes: Bytes<'_>, random: &mut Random) -> String {
    let trunk = pages::header(bytes.pages.free_trunks[0]);
    let len = pages::number_at(bytes.main, trunk + 4);
    for entry in bytes.main[trunk + 8..trunk + 8 + 4 * len].chunks_exact_mut(4) {
        let number = random.pick(&bytes.pages.leaves) + 1;
        entry.copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    }
    format!("the free list at offset {trunk} names {len} leaves")
}

fn log_header_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    flip_log(bytes, 0..LOG_HEADER_LEN, random)
}

fn frame_header_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let frame = LOG_HEADER_LEN + FRAME_LEN * random.below(bytes.log.len() / FRAME_LEN);
    flip_log(bytes, frame..frame + FRAME_HEADER_LEN, random)
}

fn frame_page_bit(bytes: Bytes<'_>, random: &mut Random) -> String {
    let frame = LOG_HEADER_LEN + FRAME_LEN * random.below(bytes.log.len() / FRAME_LEN);
    flip_log(bytes, frame + FRAME_HEADER_LEN..frame + FRAME_LEN, random)
}

fn flip_log(bytes: Bytes<'_>, range: Range<usize>, random: &mut Random) -> String {
    let at = range.start + random.below(range.len());
    let bit = random.below(8);
    bytes.log[at] ^= 1 << bit;
    format!("bit {bit} of the log's byte {at}")
}

fn log_cut(bytes: Bytes<'_>, random: &mut Random) -> String {
    let len = random.below(bytes.log.len());
    bytes.log.truncate(len);
    format!("the log cut after {len} bytes")
}

fn log_sector_zeroed(bytes: Bytes<'_>, random: &mut Random) -> String {
    zero_sector(bytes.log, random)
}

fn foreign_log(bytes: Bytes<'_>, random: &mut Random) -> String {
    let frames = 1 + random.below(bytes.log.len() / FRAME_LEN);
    bytes.log.truncate(LOG_HEADER_LEN + frames * FRAME_LEN);
    format!("the first {frames} frames of another store's log")
}
