//! What jaq runs with: our values, and a look-up table that counts each step.

use super::meter::step;
use super::value::Value;
use jaq_core::data::HasLut;
use jaq_core::{DataT, Lut};

/// jaq's run-time data: every term asks it for the look-up table.
#[derive(Clone)]
pub(super) struct Run<'a>(pub(super) &'a Lut<Data>);

/// Names the value type and run-time data for jaq.
#[derive(Debug)]
pub(super) struct Data;

impl DataT for Data {
    type V<'a> = Value;
    type Data<'a> = Run<'a>;
}

impl<'a> HasLut<'a, Data> for Run<'a> {
    #[inline]
    fn lut(&self) -> &'a Lut<Data> {
        step(0);
        self.0
    }
}
