//! The search that decides whether a recorded history of one id is linearizable (Wing and Gong's
//! algorithm, with Lowe's memoization).
//!
//! A history is linearizable if each call can be assigned a moment between its beginning and its end
//! so that the calls, in the order of these moments, answer as a plain `Option<Value>` would. A call of
//! unknown outcome may have happened at any moment after its beginning, or never.

use std::collections::HashSet;

/// A number that represents a key.
pub(crate) type Value = u32;

/// A call and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordedCall {
    Get(Option<Value>),
    Put(Value),
    /// The value, and true if it was created or false if a key existed.
    Create(Value, bool),
    /// True if a key existed.
    Delete(bool),
}

/// A call with the times of its beginning and its end, which all come from one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedCall {
    pub(crate) call: RecordedCall,
    pub(crate) begin: u64,
    /// The time of the end, or `None` if the outcome is not known. Then `call` is the answer that the
    /// call would have had.
    pub(crate) end: Option<u64>,
}

/// The result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linearizability {
    Linearizable,
    NotLinearizable,
    /// The search was cut off because it would have taken too long.
    Undecided,
}

/// The largest number of states that the search visits, which takes a second or two.
const MAX_STATES: usize = 300_000;

/// Looks for an order of the calls on one id that explains their answers. The id had no key in the
/// beginning.
pub(crate) fn check(history: &[TimedCall]) -> Linearizability {
    let mut events = history.to_vec();
    events.sort_by_key(|event| event.begin);
    let mut search = Search { events: &events, seen: HashSet::new(), cut_off: false };
    let todo = Todo::all(events.len());
    match (search.finds(&todo, None), search.cut_off) {
        (true, _) => Linearizability::Linearizable,
        (false, true) => Linearizability::Undecided,
        (false, false) => Linearizability::NotLinearizable,
    }
}

struct Search<'a> {
    /// The calls, ordered by their beginnings.
    events: &'a [TimedCall],
    /// The combinations of remaining calls and state that have been tried.
    seen: HashSet<(Todo, Option<Value>)>,
    cut_off: bool,
}

impl Search<'_> {
    /// Reports whether there is an order of the remaining calls from this state on. It is not recursive,
    /// because histories may be long.
    fn finds(&mut self, todo: &Todo, state: Option<Value>) -> bool {
        let mut open = vec![(todo.clone(), state)];
        while let Some((todo, state)) = open.pop() {
            if !todo.iter().any(|index| self.events[index].end.is_some()) {
                return true;
            }
            if self.seen.len() == MAX_STATES {
                self.cut_off = true;
                return false;
            }
            if !self.seen.insert((todo.clone(), state)) {
                continue;
            }
            // A call can come next only if no remaining call ended before it began.
            let first_end = todo.iter().filter_map(|index| self.events[index].end).min().unwrap_or(u64::MAX);
            for index in todo.iter() {
                let event = &self.events[index];
                if event.begin > first_end {
                    break;
                }
                if let Some(next) = apply(event, state) {
                    open.push((todo.without(index), next));
                }
            }
        }
        false
    }
}

/// Returns the state after the call, or `None` if it would not have given its answer in this state.
fn apply(event: &TimedCall, state: Option<Value>) -> Option<Option<Value>> {
    let unknown = event.end.is_none();
    match event.call {
        RecordedCall::Get(value) => (unknown || value == state).then_some(state),
        RecordedCall::Put(value) => Some(Some(value)),
        RecordedCall::Create(value, _) if unknown => Some(state.or(Some(value))),
        RecordedCall::Create(value, true) => state.is_none().then_some(Some(value)),
        RecordedCall::Create(_, false) => state.is_some().then_some(state),
        RecordedCall::Delete(_) if unknown => Some(None),
        RecordedCall::Delete(existed) => (existed == state.is_some()).then_some(None),
    }
}

/// A set of indexes of calls.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Todo(Vec<u64>);

impl Todo {
    fn all(count: usize) -> Self {
        let mut words = vec![0; count.div_ceil(64)];
        (0..count).for_each(|index| words[index / 64] |= 1 << (index % 64));
        Self(words)
    }

    fn without(&self, index: usize) -> Self {
        let mut words = self.0.clone();
        words[index / 64] &= !(1 << (index % 64));
        Self(words)
    }

    /// Returns the indexes in ascending order.
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(call: RecordedCall, begin: u64, end: u64) -> TimedCall {
        TimedCall { call, begin, end: Some(end) }
    }

    fn pending(call: RecordedCall, begin: u64) -> TimedCall {
        TimedCall { call, begin, end: None }
    }

    #[test]
    fn calls_one_after_the_other_are_what_a_plain_option_answers() {
        let history = [
            event(RecordedCall::Get(None), 0, 1),
            event(RecordedCall::Create(1, true), 2, 3),
            event(RecordedCall::Create(2, false), 4, 5),
            event(RecordedCall::Get(Some(1)), 6, 7),
            event(RecordedCall::Put(3), 8, 9),
            event(RecordedCall::Delete(true), 10, 11),
            event(RecordedCall::Delete(false), 12, 13),
        ];
        assert_eq!(check(&history), Linearizability::Linearizable);
        assert_eq!(check(&[]), Linearizability::Linearizable);
    }

    #[test]
    fn overlapping_calls_may_have_either_order() {
        for read in [None, Some(1)] {
            let history = [event(RecordedCall::Put(1), 0, 10), event(RecordedCall::Get(read), 1, 9)];
            assert_eq!(check(&history), Linearizability::Linearizable);
        }
    }

    #[test]
    fn a_stale_read_is_seen() {
        let history = [
            event(RecordedCall::Put(1), 0, 1),
            event(RecordedCall::Put(2), 2, 3),
            event(RecordedCall::Get(Some(1)), 4, 5),
        ];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
        // Two readers that disagree about the order of two writes.
        let history = [
            event(RecordedCall::Put(1), 0, 10),
            event(RecordedCall::Put(2), 0, 10),
            event(RecordedCall::Get(Some(1)), 11, 12),
            event(RecordedCall::Get(Some(2)), 13, 14),
        ];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
    }

    #[test]
    fn a_lost_update_is_seen() {
        let history = [event(RecordedCall::Put(1), 0, 1), event(RecordedCall::Get(None), 2, 3)];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
    }

    #[test]
    fn a_split_create_is_seen() {
        let history = [event(RecordedCall::Create(1, true), 0, 10), event(RecordedCall::Create(2, true), 0, 10)];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
        let history = [event(RecordedCall::Create(1, true), 0, 10), event(RecordedCall::Create(2, false), 0, 10)];
        assert_eq!(check(&history), Linearizability::Linearizable);
        // Nobody created a key, yet both were told that one exists.
        let history = [event(RecordedCall::Create(1, false), 0, 10), event(RecordedCall::Create(2, false), 0, 10)];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
    }

    #[test]
    fn a_key_that_comes_back_after_its_delete_is_seen() {
        let history = [
            event(RecordedCall::Put(1), 0, 1),
            event(RecordedCall::Delete(true), 2, 3),
            event(RecordedCall::Get(Some(1)), 4, 5),
        ];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
    }

    #[test]
    fn a_call_of_unknown_outcome_may_have_happened_late_or_never() {
        let put = pending(RecordedCall::Put(1), 0);
        for reads in [[None, None], [None, Some(1)], [Some(1), Some(1)]] {
            let history = [put, event(RecordedCall::Get(reads[0]), 5, 6), event(RecordedCall::Get(reads[1]), 7, 8)];
            assert_eq!(check(&history), Linearizability::Linearizable, "{reads:?}");
        }
        let history = [put, event(RecordedCall::Get(Some(1)), 5, 6), event(RecordedCall::Get(None), 7, 8)];
        assert_eq!(check(&history), Linearizability::NotLinearizable);
        let delete = pending(RecordedCall::Delete(true), 2);
        let history = [
            event(RecordedCall::Put(1), 0, 1),
            delete,
            event(RecordedCall::Get(Some(1)), 3, 4),
            event(RecordedCall::Get(None), 5, 6),
        ];
        assert_eq!(check(&history), Linearizability::Linearizable);
    }

    #[test]
    fn a_value_that_nobody_wrote_is_seen() {
        assert_eq!(
            check(&[event(RecordedCall::Put(1), 0, 9), event(RecordedCall::Get(Some(7)), 1, 8)]),
            Linearizability::NotLinearizable
        );
    }

    #[test]
    fn a_history_with_much_overlap_is_decided_quickly() {
        // Eight clients whose calls always overlap, and a read at the end that nothing explains.
        let mut history: Vec<TimedCall> =
            (0..96).map(|n| event(RecordedCall::Put(n), u64::from(n / 8) * 10, u64::from(n / 8) * 10 + 15)).collect();
        history.push(event(RecordedCall::Get(Some(95)), 200, 201));
        assert_eq!(check(&history), Linearizability::Linearizable);
        history.push(event(RecordedCall::Get(Some(3)), 202, 203));
        assert_ne!(check(&history), Linearizability::Linearizable);
    }
}
