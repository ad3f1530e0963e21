//! Access patterns: a few people are visited most of the time, as in real use.

/// People in the order in which their keys are read.
#[derive(Clone, Debug)]
pub struct Visits {
    /// The number of people.
    pub people: usize,
    /// The people in the order of their visits: numbers below `people`.
    pub order: Vec<usize>,
}

/// Between two scans there are so many visits.
const BETWEEN_SCANS: usize = 10_000;

/// The number of people that are visited once in a scan.
const SCANNED: usize = 2_000;

/// `count` visits to `people` people, the n-th of whom is visited in proportion to `1 /
/// n^exponent`; with `scans`, everybody in turn is visited once now and then, as a nightly job does
/// it. The same in every run.
pub fn zipf(people: usize, count: usize, exponent: f64, scans: bool) -> Visits {
    let mut sum = 0.0;
    let shares: Vec<f64> = (1..=people)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut ranked: Vec<usize> = (0..people).collect();
    random.shuffle(&mut ranked);
    let (mut order, mut next_scanned) = (Vec::with_capacity(count), 0);
    while order.len() < count {
        if scans && order.len() % (BETWEEN_SCANS + SCANNED) == BETWEEN_SCANS {
            order.extend((next_scanned..next_scanned + SCANNED).map(|number| number % people));
            next_scanned += SCANNED;
        } else {
            let place = random.f64() * sum;
            let rank = shares.partition_point(|share| *share < place).min(people - 1);
            order.push(ranked[rank]);
        }
    }
    Visits { people, order }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_visited_as_often_as_zipf_says() {
        let visits = zipf(100, 100_000, 0.9, false);
        let mut counts = vec![0.0; 100];
        visits.order.iter().for_each(|person| counts[*person] += 1.0);
        counts.sort_by(|a: &f64, b| b.total_cmp(a));
        let ratio = counts[0] / counts[9];
        assert!((ratio - 10_f64.powf(0.9)).abs() < 1.0, "{ratio}");
    }

    #[test]
    fn a_scan_visits_everybody_once() {
        let visits = zipf(SCANNED, BETWEEN_SCANS + SCANNED, 0.9, true);
        let mut scanned = visits.order[BETWEEN_SCANS..].to_vec();
        scanned.sort_unstable();
        assert_eq!(scanned, (0..SCANNED).collect::<Vec<_>>());
    }
}
