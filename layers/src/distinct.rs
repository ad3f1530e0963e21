//! [`Distinct`]: a batch of ids without its repetitions.

use std::collections::HashMap;

use keystead_core::KeyId;

/// The ids of a batch, each once.
pub(crate) struct Distinct {
    pub(crate) ids: Vec<KeyId>,
    /// For each place of the batch, the index of its id in `ids`.
    indexes: Vec<usize>,
}

impl Distinct {
    pub(crate) fn of(batch: &[KeyId]) -> Self {
        let mut ids = Vec::with_capacity(batch.len());
        let mut index_of = HashMap::with_capacity(batch.len());
        let mut indexes = Vec::with_capacity(batch.len());
        for id in batch {
            let index = *index_of.entry(id).or_insert_with(|| {
                ids.push(id.clone());
                ids.len() - 1
            });
            indexes.push(index);
        }
        Self { ids, indexes }
    }

    /// Returns one outcome for each place of the batch, given one outcome for each distinct id.
    pub(crate) fn spread<T: Clone>(&self, outcomes: &[T]) -> Vec<T> {
        self.indexes.iter().filter_map(|&index| outcomes.get(index).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_there_once_and_its_outcome_at_each_of_its_places() {
        let batch = ["a", "b", "a", "c", "b"].map(|id| KeyId::new(id).unwrap());
        let distinct = Distinct::of(&batch);
        assert_eq!(distinct.ids, ["a", "b", "c"].map(|id| KeyId::new(id).unwrap()));
        assert_eq!(distinct.spread(&[1, 2, 3]), [1, 2, 1, 3, 2]);
    }
}
