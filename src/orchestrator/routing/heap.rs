//! Binary heap steps over a vector whose elements' places are told to the caller, so that any element can be found,
//! changed or removed in O(log n).
//!
//! `less` orders the elements; `moved` is called with every element that came to rest in a place, once per place.

/// Adds `item`.
pub(crate) fn push<T: Copy>(
    heap: &mut Vec<T>,
    item: T,
    less: impl Fn(&T, &T) -> bool,
    moved: impl FnMut(&T, usize),
) {
    let at = heap.len();
    heap.push(item);
    sift_up(heap, at, less, moved);
}

/// Removes the element at `at`; its place is told to nobody.
pub(crate) fn remove<T: Copy>(
    heap: &mut Vec<T>,
    at: usize,
    less: impl Fn(&T, &T) -> bool,
    moved: impl FnMut(&T, usize),
) {
    heap.swap_remove(at);
    if at < heap.len() {
        settle(heap, at, less, moved);
    }
}

/// Restores the order after the element at `at` changed.
pub(crate) fn settle<T: Copy>(
    heap: &mut [T],
    at: usize,
    less: impl Fn(&T, &T) -> bool,
    mut moved: impl FnMut(&T, usize),
) {
    if sift_up(heap, at, &less, &mut moved) == at {
        sift_down(heap, at, less, moved);
    }
}

/// Brings all elements into order, in O(n).
pub(crate) fn build<T: Copy>(
    heap: &mut [T],
    less: impl Fn(&T, &T) -> bool,
    mut moved: impl FnMut(&T, usize),
) {
    for (at, item) in heap.iter().enumerate() {
        moved(item, at);
    }
    for at in (0..heap.len() / 2).rev() {
        sift_down(heap, at, &less, &mut moved);
    }
}

fn sift_up<T: Copy>(
    heap: &mut [T],
    mut at: usize,
    less: impl Fn(&T, &T) -> bool,
    mut moved: impl FnMut(&T, usize),
) -> usize {
    let item = heap[at];
    while at > 0 {
        let parent = (at - 1) / 2;
        if !less(&item, &heap[parent]) {
            break;
        }
        heap[at] = heap[parent];
        moved(&heap[at], at);
        at = parent;
    }
    heap[at] = item;
    moved(&item, at);
    at
}

fn sift_down<T: Copy>(
    heap: &mut [T],
    mut at: usize,
    less: impl Fn(&T, &T) -> bool,
    mut moved: impl FnMut(&T, usize),
) {
    let item = heap[at];
    loop {
        let mut child = 2 * at + 1;
        if child >= heap.len() {
            break;
        }
        if child + 1 < heap.len() && less(&heap[child + 1], &heap[child]) {
            child += 1;
        }
        if !less(&heap[child], &item) {
            break;
        }
        heap[at] = heap[child];
        moved(&heap[at], at);
        at = child;
    }
    heap[at] = item;
    moved(&item, at);
}
