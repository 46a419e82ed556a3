//! One way to say a thing: what is null is not said, and a whole number is an integer however it is written.

use serde_json::{Number, Value};

/// Up to here a float holds every whole number exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The same without nulls in objects, and with whole numbers as integers.
#[must_use]
pub fn plain(value: Value) -> Value {
    match value {
        Value::Object(said) => {
            let said = said.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Number(number) => Value::Number(whole(number)),
        same @ (Value::Null | Value::Bool(_) | Value::String(_)) => same,
    }
}

fn whole(number: Number) -> Number {
    let float = number.as_f64().filter(|_| number.is_f64());
    let float = float.filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX);
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and to fit")]
    let whole = float.map(|float| Number::from(float as i64));
    whole.unwrap_or(number)
}
