//! The laws of a store.

mod broken;
mod defect;

use std::sync::Arc;

use lap_conformance::store::LAWS;
use lap_conformance::{ManualClock, StoreUnderTest};

use crate::trial::{Trial, trial};
use broken::Broken;
use defect::{Defect, TRIPS};

const TRIAL: Trial<StoreUnderTest, Defect> = Trial {
    laws: LAWS,
    trips: TRIPS,
    none: Defect::None,
    make,
};

trial!(TRIAL);

fn make(defect: Defect) -> StoreUnderTest {
    let clock = ManualClock::default();
    StoreUnderTest::with_clock(Arc::new(Broken::new(defect, &clock)), clock)
}
