//! [`AccessPattern`]: the order in which keys are read, most of the time those of a few users, as
//! in real use.

/// The order in which the keys of users are read.
#[derive(Clone, Debug)]
pub struct AccessPattern {
    /// The number of users.
    pub users: usize,
    /// The indices of the users, below `users`, in the order in which their keys are read.
    pub order: Vec<usize>,
}

/// The number of accesses between two scans.
const BETWEEN_SCANS: usize = 10_000;

/// The number of users whose keys a scan reads, each once.
const SCANNED: usize = 2_000;

/// Returns `count` accesses to the keys of `users` users: the key of the n-th most frequent user is
/// read in proportion to `1 / n^exponent`. With `scans`, there is now and then a scan that reads
/// every key of a range of users once, as a nightly job does. The result is the same in every run.
pub fn zipf(users: usize, count: usize, exponent: f64, scans: bool) -> AccessPattern {
    let mut sum = 0.0;
    let shares: Vec<f64> = (1..=users)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut ranked: Vec<usize> = (0..users).collect();
    random.shuffle(&mut ranked);
    let mut order = Vec::with_capacity(count);
    let mut next_scanned = 0;
    while order.len() < count {
        if scans && order.len() % (BETWEEN_SCANS + SCANNED) == BETWEEN_SCANS {
            order.extend((next_scanned..next_scanned + SCANNED).map(|index| index % users));
            next_scanned += SCANNED;
        } else {
            let point = random.f64() * sum;
            let rank = shares.partition_point(|share| *share < point).min(users - 1);
            order.push(ranked[rank]);
        }
    }
    AccessPattern { users, order }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_users_are_read_as_often_as_zipf_says() {
        let pattern = zipf(100, 100_000, 0.9, false);
        let mut counts = vec![0.0; 100];
        pattern.order.iter().for_each(|user| counts[*user] += 1.0);
        counts.sort_by(|a: &f64, b| b.total_cmp(a));
        let ratio = counts[0] / counts[9];
        assert!((ratio - 10_f64.powf(0.9)).abs() < 1.0, "{ratio}");
    }

    #[test]
    fn a_scan_reads_each_key_once() {
        let pattern = zipf(SCANNED, BETWEEN_SCANS + SCANNED, 0.9, true);
        let mut scanned = pattern.order[BETWEEN_SCANS..].to_vec();
        scanned.sort_unstable();
        assert_eq!(scanned, (0..SCANNED).collect::<Vec<_>>());
    }
}
