//! Measuring: rounds that take turns, so that whatever disturbs the machine disturbs all sides.

use std::time::{Duration, Instant};

use keystead_core::BoxError;

/// One side of a comparison: does a round of its work and says what an operation cost.
pub type Side<'a> = &'a mut dyn FnMut() -> Result<Cost, BoxError>;

/// Nanoseconds an operation.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Cost(pub f64);

/// The costs of an operation, one for each round.
#[derive(Clone, Debug)]
pub struct Samples(Vec<Cost>);

impl Cost {
    /// The cost of each of so many operations that took `time` together.
    pub fn of(time: Duration, operations: usize) -> Self {
        Self(time.as_secs_f64() * 1e9 / operations as f64)
    }
}

/// Runs work that does so many operations, and says what each cost.
///
/// # Errors
/// What the work returns.
pub fn time(operations: usize, work: impl FnOnce() -> Result<(), BoxError>) -> Result<Cost, BoxError> {
    let start = Instant::now();
    work()?;
    Ok(Cost::of(start.elapsed(), operations))
}

/// Runs all sides once to warm up and then for so many rounds, each round in another order.
///
/// # Errors
/// What a side returns.
pub fn take_turns<const N: usize>(rounds: usize, mut sides: [Side<'_>; N]) -> Result<[Samples; N], BoxError> {
    let mut samples = [const { Samples(Vec::new()) }; N];
    for side in &mut sides {
        side()?;
    }
    for round in 0..rounds {
        for turn in 0..N {
            let number = (round + turn) % N;
            samples[number].0.push(sides[number]()?);
        }
    }
    Ok(samples)
}

impl Samples {
    /// The same cost in each round: for what is not measured in rounds, or is a fixed limit.
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

/// The value in the middle; of an even number of values, the mean of the two in the middle. NaN for none.
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
    fn sides_take_turns_after_a_warm_up_and_begin_in_turn() {
        let order = std::cell::RefCell::new(String::new());
        let side = |name| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(Cost(1.0))
            }
        };
        take_turns(3, [&mut side('a'), &mut side('b')]).unwrap();
        assert_eq!(*order.borrow(), "ababbaab");
    }

    #[test]
    fn a_warm_up_round_does_not_count() {
        let mut rounds = 0.0;
        let mut side = || {
            rounds += 1.0;
            Ok(Cost(rounds))
        };
        let [samples] = take_turns(3, [&mut side]).unwrap();
        assert_eq!(samples.median(), Cost(3.0), "of 2, 3 and 4");
    }

    #[test]
    fn a_side_that_fails_ends_the_comparison() {
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
    fn a_cost_is_nanoseconds_an_operation() {
        assert_eq!(Cost::of(Duration::from_micros(3), 2), Cost(1500.0));
    }
}
