//! `+ - * / %` on values, with jq's rules for each pair of types.

use super::meter::{Exceeded, check_memory, exceed, max_string, step};
use super::number::{MAX_EXACT, calculated, float, operand};
use super::value::{Error, List, Value};
use jaq_core::ValR;
use jaq_core::ops::Math;
use jaq_json::Num;
use std::sync::Arc;

fn math(op: Math, left: Value, right: Value) -> ValR<Value> {
    step(0);
    Ok(match (op, left, right) {
        (Math::Add, Value::Null(_), other) | (Math::Add, other, Value::Null(_)) => other,
        (Math::Add, Value::Number(a), Value::Number(b)) => number(operand(a) + operand(b)),
        (Math::Sub, Value::Number(a), Value::Number(b)) => number(operand(a) - operand(b)),
        (Math::Mul, Value::Number(a), Value::Number(b)) => number(operand(a) * operand(b)),
        (Math::Div, Value::Number(a), Value::Number(b)) => quotient(&a, &b),
        (Math::Rem, Value::Number(a), Value::Number(b)) if float(&b) != 0.0 => number(operand(a) % operand(b)),

        (Math::Add, Value::String(mut a), Value::String(b)) => {
            Arc::make_mut(&mut a).push_str(&b);
            Value::String(a)
        }
        (Math::Add, Value::Array(mut a), Value::Array(b)) => {
            let list = Arc::make_mut(&mut a);
            b.iter().for_each(|value| list.push(value.clone()));
            Value::Array(a)
        }
        (Math::Add, Value::Object(mut a), Value::Object(b)) => {
            step(b.len() >> 1);
            let map = Arc::make_mut(&mut a);
            b.iter().for_each(|(key, value)| map.put(key.clone(), value.clone()));
            Value::Object(a)
        }
        (Math::Sub, Value::Array(a), Value::Array(b)) => {
            let mut without = b.to_vec();
            without.sort();
            List::of(a.iter().filter(|value| without.binary_search(value).is_err()))
        }
        (Math::Mul, Value::String(text), ref times @ Value::Number(_))
        | (Math::Mul, ref times @ Value::Number(_), Value::String(text)) => repeated(&text, times),
        (Math::Mul, left @ Value::Object(_), right @ Value::Object(_)) => merged(left, right),
        (Math::Div, Value::String(text), Value::String(separator)) => split(&text, &separator),

        (op, left, right) => return Err(Error::math(left, op, right)),
    })
}

fn number(number: Num) -> Value {
    Value::Number(calculated(number))
}

/// Shown as an integer where doubles have no gaps, as in jq.
fn quotient(a: &Num, b: &Num) -> Value {
    let quotient = float(a) / float(b);
    if quotient.fract() == 0.0 && quotient.abs() < MAX_EXACT { (quotient as isize).into() } else { quotient.into() }
}

fn repeated(text: &str, times: &Value) -> Value {
    match times.place(0) {
        None | Some(0) => Value::default(),
        Some(times) if text.len().saturating_mul(times) > max_string() => exceed(Exceeded::Memory),
        Some(times) => {
            check_memory(text.len() * times);
            Value::string(text.repeat(times))
        }
    }
}

/// The right object over the left one, and so on within: values are bounded in depth, so the recursion is.
fn merged(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            step(right.len());
            let mut map = Arc::unwrap_or_clone(left);
            for (key, value) in right.iter() {
                let before = map.take(key).unwrap_or_default();
                map.put(key.clone(), merged(before, value.clone()))
            }
            map.into()
        }
        (_, right) => right,
    }
}

fn split(text: &str, separator: &str) -> Value {
    step((text.len() + separator.len()) >> 6);
    if separator.len() > text.len() && !text.is_empty() {
        [Value::string(text)].into_iter().collect()
    } else if text.is_empty() {
        List::default().into()
    } else if separator.is_empty() {
        text.chars().map(Value::string).collect()
    } else {
        text.split(separator).map(Value::string).collect()
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident),*) => { $(
        impl std::ops::$Trait for Value {
            type Output = ValR<Value>;
            fn $method(self, other: Value) -> ValR<Value> {
                math(Math::$Trait, self, other)
            }
        }
    )* };
}

operators!(Add add, Sub sub, Mul mul, Div div, Rem rem);

impl std::ops::Neg for Value {
    type Output = ValR<Value>;
    fn neg(self) -> ValR<Value> {
        math(Math::Sub, 0usize.into(), self)
    }
}
