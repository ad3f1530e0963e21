//! Measuring in interleaved rounds, so that a disturbance of the machine affects all workloads
//! alike.

use std::time::{Duration, Instant};

use keystead_core::BoxError;

/// One of the workloads that are compared: runs one round and returns the cost of an operation.
pub type Workload<'a> = &'a mut dyn FnMut() -> Result<Cost, BoxError>;

/// The cost of an operation, in nanoseconds unless the row has another unit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Cost(pub f64);

/// The costs of an operation, one for each round.
#[derive(Clone, Debug)]
pub struct Samples(Vec<Cost>);

impl Cost {
    /// Returns the cost of each of `operations` operations that took `time` together.
    pub fn of(time: Duration, operations: usize) -> Self {
        Self(time.as_secs_f64() * 1e9 / operations as f64)
    }
}

/// Runs work that consists of `operations` operations, and returns the cost of each.
///
/// # Errors
/// Those of the work.
pub fn time(operations: usize, work: impl FnOnce() -> Result<(), BoxError>) -> Result<Cost, BoxError> {
    let start = Instant::now();
    work()?;
    Ok(Cost::of(start.elapsed(), operations))
}

/// Runs all workloads once to warm up and then `rounds` times. Each round begins with another
/// workload.
///
/// # Errors
/// Those of a workload.
pub fn take_turns<const N: usize>(rounds: usize, mut workloads: [Workload<'_>; N]) -> Result<[Samples; N], BoxError> {
    let mut samples = [const { Samples(Vec::new()) }; N];
    for workload in &mut workloads {
        workload()?;
    }
    for round in 0..rounds {
        for turn in 0..N {
            let index = (round + turn) % N;
            samples[index].0.push(workloads[index]()?);
        }
    }
    Ok(samples)
}

impl Samples {
    /// Returns one cost that stands for all rounds: for a limit, or a figure not measured in
    /// rounds.
    pub fn fixed(cost: Cost) -> Self {
        Self(vec![cost])
    }

    /// Returns the median of the costs.
    pub fn median(&self) -> Cost {
        Cost(median(self.0.iter().map(|cost| cost.0)))
    }

    /// Returns the median of the ratios between these costs and those of `other`. Each round is
    /// compared with the same round.
    pub fn over(&self, other: &Self) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours.0 / theirs.0))
    }
}

impl From<Vec<Cost>> for Samples {
    fn from(costs: Vec<Cost>) -> Self {
        Self(costs)
    }
}

/// Returns the value in the middle, or the mean of the two in the middle; NaN if there are no
/// values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_take_turns_after_a_warm_up_and_begin_in_turn() {
        let order = std::cell::RefCell::new(String::new());
        let workload = |name| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(Cost(1.0))
            }
        };
        take_turns(3, [&mut workload('a'), &mut workload('b')]).unwrap();
        assert_eq!(*order.borrow(), "ababbaab");
    }

    #[test]
    fn a_warm_up_round_does_not_count() {
        let mut rounds = 0.0;
        let mut workload = || {
            rounds += 1.0;
            Ok(Cost(rounds))
        };
        let [samples] = take_turns(3, [&mut workload]).unwrap();
        assert_eq!(samples.median(), Cost(3.0), "of 2, 3 and 4");
    }

    #[test]
    fn a_workload_that_fails_ends_the_comparison() {
        assert!(take_turns(1, [&mut || Err("broken".into())]).is_err());
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let ours = Samples::from(vec![Cost(2.0), Cost(30.0), Cost(8.0)]);
        let theirs = Samples::from(vec![Cost(1.0), Cost(10.0), Cost(2.0)]);
        assert_eq!(ours.over(&theirs), 3.0, "of 2, 3 and 4");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn a_cost_is_in_nanoseconds_per_operation() {
        assert_eq!(Cost::of(Duration::from_micros(3), 2), Cost(1500.0));
    }
}
