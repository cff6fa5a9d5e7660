//! Counts latencies in slots that widen with the value: exact below 256 µs, less than 1 % off above.

use std::time::Duration;

/// Every doubling of the value is divided into this many slots.
const SLOTS_PER_DOUBLING: u32 = 128;

/// Up to `u32::MAX` microseconds, 71 minutes; longer counts as that.
const SLOTS: usize = 26 * SLOTS_PER_DOUBLING as usize;

/// A latency distribution in microseconds, of fixed size.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; SLOTS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        if let Some(count) = self.counts.get_mut(slot(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Adds what another histogram counted.
    pub(crate) fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The nearest-rank percentile in microseconds, rounded up to the end of its slot so that it never
    /// flatters; 0 when nothing was counted.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_value(slot).min(self.max());
            }
        }
        self.max()
    }

    /// The longest latency in microseconds, exact; 0 when nothing was counted.
    pub(crate) fn max(&self) -> u64 {
        u64::from(self.max)
    }
}

/// The first two doublings' worth of values have a slot each; then a slot spans 2, 4, 8 .. values.
fn slot(micros: u32) -> usize {
    let shift = micros.max(SLOTS_PER_DOUBLING).ilog2() - SLOTS_PER_DOUBLING.ilog2();
    (shift * SLOTS_PER_DOUBLING + (micros >> shift)) as usize
}

/// The largest value that [`slot`] puts here.
fn last_value(slot: usize) -> u64 {
    let (slot, per_doubling) = (slot as u64, u64::from(SLOTS_PER_DOUBLING));
    let shift = (slot / per_doubling).saturating_sub(1);
    ((slot - shift * per_doubling + 1) << shift) - 1
}
