//! [`Distinct`]: the ids of a batch, each once.

use std::collections::HashMap;

use keystead_core::KeyId;

/// The ids of a batch, each once, and which of them each place of the batch names.
pub(crate) struct Distinct {
    pub(crate) ids: Vec<KeyId>,
    numbers: Vec<usize>,
}

impl Distinct {
    pub(crate) fn of(batch: &[KeyId]) -> Self {
        let mut ids = Vec::with_capacity(batch.len());
        let mut known = HashMap::with_capacity(batch.len());
        let mut numbers = Vec::with_capacity(batch.len());
        for id in batch {
            let number = *known.entry(id).or_insert_with(|| {
                ids.push(id.clone());
                ids.len() - 1
            });
            numbers.push(number);
        }
        Self { ids, numbers }
    }

    /// One outcome for each place of the batch, from one for each distinct id.
    pub(crate) fn spread<T: Clone>(&self, outcomes: &[T]) -> Vec<T> {
        self.numbers.iter().filter_map(|&number| outcomes.get(number).cloned()).collect()
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
