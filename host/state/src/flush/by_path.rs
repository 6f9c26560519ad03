//! Sorts cells by their paths.
//!
//! Eight bytes of each path stand beside its cell, those behind what all paths have in common, and are
//! compared in place of the paths, which lie somewhere in memory: of a hundred thousand znodes under one
//! parent, hardly a path is looked at twice.

use std::sync::Arc;

use crate::cache::{self, Cell, NEAR};

/// So few are compared by their paths.
const FEW: usize = 16;

/// The cells in the order of their paths.
pub(super) fn sorted(cells: &[Arc<Cell>]) -> Vec<&Arc<Cell>> {
    let mut sorted = Vec::with_capacity(cells.len());
    for few in cells.chunks(NEAR) {
        cache::touch_paths(few);
        sorted.extend(few.iter().map(|cell| (0, cell.path.as_bytes(), cell)));
    }
    sort(&mut sorted);
    sorted.into_iter().map(|(_, _, cell)| cell).collect()
}

/// Sorts by the paths, which have no byte 0. The number is for the eight bytes.
fn sort<T>(all: &mut [(u64, &[u8], T)]) {
    if all.len() <= FEW {
        return all.sort_unstable_by(|(_, a, _), (_, b, _)| a.cmp(b));
    }
    let first = all[0].1;
    let shared = all.iter().fold(first.len(), |shared, (_, other, _)| {
        if other.starts_with(&first[..shared]) {
            return shared;
        }
        let both = first[..shared].iter().zip(*other);
        both.take_while(|(a, b)| a == b).count()
    });
    for (head, path, _) in all.iter_mut() {
        *head = head_of(&path[shared..]);
    }
    all.sort_unstable_by_key(|(head, ..)| *head);
    // If all are equal here, they are all the same.
    if all.first().map(|(head, ..)| *head) != all.last().map(|(head, ..)| *head) {
        all.chunk_by_mut(|(a, ..), (b, ..)| a == b).for_each(sort);
    }
}

/// The first eight bytes as a number that has their order; what is shorter comes first.
fn head_of(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let length = bytes.len().min(8);
    head[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[String]) {
        let mut sorted: Vec<_> = paths.iter().map(|path| (0, path.as_bytes(), path)).collect();
        sort(&mut sorted);
        let mut expected: Vec<_> = paths.iter().collect();
        expected.sort();
        assert_eq!(sorted.into_iter().map(|(_, _, path)| path).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_order_is_that_of_the_paths() {
        let number = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        check(&(0..1000).map(|i| format!("/a/n-{:010}", number(i))).collect::<Vec<_>>());
        check(
            &(0..1000).map(|i| format!("/{}/x/{}", number(i) % 7, number(i))).collect::<Vec<_>>(),
        );
        check(&(0..1000).map(|i| format!("/{:x}", number(i))).collect::<Vec<_>>());
    }

    #[test]
    fn a_path_comes_before_those_that_go_on_from_it() {
        check(&(0..300).rev().map(|depth| "/a".repeat(depth)).collect::<Vec<_>>());
        let long = "x".repeat(70_000);
        check(&(0..40).map(|i| format!("/{long}{}", i % 20 * 3)).collect::<Vec<_>>());
    }

    #[test]
    fn equal_ones_and_few_are_no_special_case() {
        check(&vec!["/the/same".to_owned(); 100]);
        check(&["/b".to_owned(), "/a".to_owned()]);
        check(&[]);
    }
}
