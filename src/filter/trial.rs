//! Runs a term at start, as a program of its own, to learn its value.

use super::data::{Data, Run};
use super::load::{Source, load_and_compile};
use super::meter::{Limits, Metered, step, steps_taken};
use super::syntax::{Term, each};
use super::value::Value;
use jaq_core::load::parse::Def;
use jaq_core::{Ctx, Vars};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const PROGRAM: &str = "value";
/// Bytes of a constant as JSON that cost a step, so that one budget bounds both.
const BYTES_PER_STEP: usize = 2;
/// What one term may take: a start takes a few milliseconds.
const LIMITS: Limits =
    Limits { steps: 1 << 14, memory: 1 << 20, stack: 256 << 10, output: 64 << 10, time: Duration::from_millis(20) };

/// The one output of a term, and the steps that it took. The term knows these variables, and natives, but no definitions of jaq's. None:
/// it gives an error or another number of outputs, exceeds a limit, or gives what JSON cannot write.
pub(super) fn value_of<'a>(mut term: Term<'a>, variables: &HashMap<&'a str, Value>) -> (Option<Value>, u64) {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    each(&mut term, &mut |term| {
        if let Term::Var(name) = term
            && let Some(value) = variables.get(name)
        {
            names.push(*name);
            values.push(value.clone())
        }
    });
    let program = Def { name: PROGRAM, args: Vec::new(), body: term };
    let source = Source { code: PROGRAM, name: "", folder: None };
    let Ok(filter) = load_and_compile(source, PROGRAM, vec![program], &names, &mut |_, _| Err(String::new())) else {
        return (None, 0);
    };
    let metered = Metered::start(&LIMITS, Instant::now() + LIMITS.time, 0, None);
    let run = || {
        let context = Ctx::<Data>::new(Run(&filter.lut), Vars::new(values));
        let mut outputs = filter.id.run((context, Value::default()));
        let value = outputs.next()?.ok()?;
        // what shares its parts can be small and yet have a long text; and constants are held as long as the process lives
        step(value.to_strict_json(LIMITS.output).ok()?.len() / BYTES_PER_STEP);
        outputs.next().is_none().then(|| value.into_stored())
    };
    let value = catch_unwind(AssertUnwindSafe(run)).ok().flatten();
    drop(metered);
    (value, steps_taken())
}
