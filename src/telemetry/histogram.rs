//! Histogram of durations: fixed buckets, counted without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds of the buckets, in microseconds: from a Check answered from memory to the longest
/// request.
const BOUNDS: [u64; 16] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// A histogram. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Number of durations in each bucket alone; the last has no upper bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Sum of all durations, in microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a duration.
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.0.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn each_duration_is_in_one_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 25, 26, 1_000, 40_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut registry = Registry::default();
        registry.register("x", "X", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "x_count 5",
            "x_bucket{le=\"0.000025\"} 2",
            "x_bucket{le=\"0.00005\"} 3",
            "x_bucket{le=\"0.001\"} 4",
            "x_bucket{le=\"30.0\"} 4",
            "x_bucket{le=\"+Inf\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
