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
    // Those that are still to be sorted, and how many bytes they have in common at least. What is behind
    // these alone is looked at: a chain of thousands of znodes would take the square of its length else.
    let mut unsorted = vec![(0..all.len(), 0)];
    while let Some((range, common)) = unsorted.pop() {
        let (start, run) = (range.start, &mut all[range]);
        let rest = |path: &[u8]| path.len().min(common);
        if run.len() <= FEW {
            run.sort_unstable_by_key(|(_, path, _)| &path[rest(path)..]);
            continue;
        }
        let first = &run[0].1[rest(run[0].1)..];
        let shared = run[1..].iter().fold(first.len(), |shared, (_, other, _)| {
            let both = first[..shared].iter().zip(&other[rest(other)..]);
            both.take_while(|(a, b)| a == b).count()
        });
        for (head, path, _) in run.iter_mut() {
            *head = head_of(&path[rest(path) + shared..]);
        }
        run.sort_unstable_by_key(|(head, ..)| *head);
        // If all are equal here, they are all the same.
        if run.first().map(|(head, ..)| *head) != run.last().map(|(head, ..)| *head) {
            let mut end = start;
            for equal in run.chunk_by(|(a, ..), (b, ..)| a == b) {
                let begin = end;
                end += equal.len();
                if equal.len() > 1 {
                    unsorted.push((begin..end, common + shared + 8));
                }
            }
        }
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
        check(&(0..3000).rev().map(|depth| "/a".repeat(depth)).collect::<Vec<_>>());
        let long = "x".repeat(70_000);
        check(&(0..40).map(|i| format!("/{long}{}", i % 20 * 3)).collect::<Vec<_>>());
    }

    #[test]
    fn equal_ones_and_few_are_no_special_case() {
        check(&vec!["/the/same".to_owned(); 100]);
        check(
            &(0..100).map(|i| ["/the/same", "/the/same/not"][i % 2].to_owned()).collect::<Vec<_>>(),
        );
        check(&["/b".to_owned(), "/a".to_owned()]);
        check(&[]);
    }
}
