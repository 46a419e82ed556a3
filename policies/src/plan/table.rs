//! Tables by typed row numbers, so that a host's row is never looked up with a guest's.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

/// A row number of one kind of table.
pub trait Key: Copy + Ord {
    /// The key of a row.
    fn of(row: usize) -> Self;
    /// The row.
    fn row(self) -> usize;
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(usize);

        impl Key for $name {
            fn of(row: usize) -> Self {
                Self(row)
            }

            fn row(self) -> usize {
                self.0
            }
        }
    };
}

key!(
    /// A host of a problem; hosts are in the order of their names.
    HostAt
);
key!(
    /// A guest of a problem; guests are in the order of their names.
    GuestAt
);
key!(
    /// A rule that keeps guests together or apart.
    GroupAt
);

/// Rows by their number.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    rows: Vec<V>,
    key: PhantomData<K>,
}

impl<K: Key, V> Table<K, V> {
    pub(super) fn new(rows: Vec<V>) -> Self {
        Self { rows, key: PhantomData }
    }

    pub(super) fn filled(length: usize, value: V) -> Self
    where
        V: Clone,
    {
        Self::new(vec![value; length])
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All row numbers, in order.
    pub fn keys(&self) -> impl Iterator<Item = K> + use<K, V> {
        (0..self.rows.len()).map(K::of)
    }

    /// All rows with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.rows.iter().enumerate().map(|(row, value)| (K::of(row), value))
    }

    pub(super) fn rows(&self) -> &[V] {
        &self.rows
    }
}

#[expect(clippy::indexing_slicing, reason = "keys are given out for the rows of one problem, and tables never shrink")]
impl<K: Key, V> Index<K> for Table<K, V> {
    type Output = V;

    fn index(&self, key: K) -> &V {
        &self.rows[key.row()]
    }
}

#[expect(clippy::indexing_slicing, reason = "keys are given out for the rows of one problem, and tables never shrink")]
impl<K: Key, V> IndexMut<K> for Table<K, V> {
    fn index_mut(&mut self, key: K) -> &mut V {
        &mut self.rows[key.row()]
    }
}
