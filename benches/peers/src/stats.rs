//! What a handful of figures says: their median, how far apart they lie, and where the median of many more would be.

use crate::measure::Random;

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Of sorted values, of which there is one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Spread { median: median(&sorted), min, max })
    }
}

/// How often the values are drawn again.
const DRAWS: usize = 4000;

/// A median, and where it lies with a confidence of 95 %.
///
/// The interval is that of the percentile bootstrap (Efron 1979): as many values are drawn from these, with repetition, and the
/// medians of 19 in 20 such draws lie in it. Of fewer than about ten values it is hardly more than from the least to the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Estimate> {
        let values = sorted(values);
        if values.is_empty() {
            return None;
        }
        // Always the same draws: a table made twice of the same results is the same.
        let mut random = Random::new(1);
        let mut draw = || sorted((0..values.len()).map(|_| values[random.below(values.len() as u64) as usize]));
        let medians = sorted((0..DRAWS).map(|_| median(&draw())));
        Some(Estimate { median: median(&values), low: medians[DRAWS / 40], high: medians[DRAWS - 1 - DRAWS / 40] })
    }
}

#[cfg(test)]
mod tests {
    use super::{Estimate, Spread};
    use crate::measure::Random;

    #[test]
    fn an_even_number_of_values_has_its_median_in_the_middle() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Estimate::of([]), None);
    }

    /// Of 15 values, the fourth and the twelfth enclose the true median in 96 of 100 cases, the fifth and the eleventh in 88: so it
    /// is by the binomial distribution, without any drawing.
    #[test]
    fn the_interval_of_a_median_is_that_of_the_binomial_distribution() {
        let found = Estimate::of((1..=15).map(f64::from)).unwrap();
        assert_eq!(found.median, 8.0);
        assert!([4.0, 5.0].contains(&found.low) && [11.0, 12.0].contains(&found.high), "{found:?}");
        assert_eq!(Estimate::of([3.0]), Some(Estimate { median: 3.0, low: 3.0, high: 3.0 }));
    }

    /// Of what is drawn evenly from 0 to 1 the median is 1/2, and about one interval in twenty misses it.
    #[test]
    fn nineteen_of_twenty_intervals_hold_the_true_median() {
        let mut random = Random::new(7);
        let mut holds = || {
            let drawn = Estimate::of((0..15).map(|_| random.below(1_000_000) as f64 / 1e6)).unwrap();
            drawn.low <= 0.5 && 0.5 <= drawn.high
        };
        let held = (0..200).filter(|_| holds()).count();
        assert!((180..=199).contains(&held), "{held} of 200");
    }
}
