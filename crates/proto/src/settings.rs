//! Settings of policies: whatever a policy asks for travels as `google.protobuf.Struct`.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Message};
use weir_core::policy::form::Value;

use crate::FieldError;

/// Largest whole number that a double tells from its neighbours.
const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

/// The settings of one policy.
pub(crate) fn message(settings: &Value) -> Struct {
    match write(settings).kind {
        Some(Kind::StructValue(table)) => table,
        _ => Struct::default(),
    }
}

fn write(value: &Value) -> Message {
    let kind = match value {
        Value::Flag(flag) => Kind::BoolValue(*flag),
        #[expect(clippy::cast_precision_loss, reason = "settings are at most 2^53 - 1")]
        Value::Whole(number) => Kind::NumberValue(*number as f64),
        Value::Text(text) => Kind::StringValue(text.clone()),
        Value::List(items) => Kind::ListValue(ListValue { values: items.iter().map(write).collect() }),
        Value::Table(table) => {
            let fields = table.iter().map(|(name, value)| (name.clone(), write(value)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    Message { kind: Some(kind) }
}

/// Reads the settings of one policy.
///
/// # Errors
/// When something in them is neither flag, whole number, text, list nor table.
pub(crate) fn read(message: &Struct) -> Result<Value, FieldError> {
    let fields = message.fields.iter().map(|(name, value)| Ok((name.clone(), read_value(value)?)));
    fields.collect::<Result<_, _>>().map(Value::Table)
}

fn read_value(message: &Message) -> Result<Value, FieldError> {
    Ok(match &message.kind {
        Some(Kind::BoolValue(flag)) => Value::Flag(*flag),
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within what a double can tell apart")]
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= WHOLE_MAX => {
            Value::Whole(*number as i64)
        }
        Some(Kind::StringValue(text)) => Value::Text(text.clone()),
        Some(Kind::ListValue(list)) => {
            Value::List(list.values.iter().map(read_value).collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(table)) => read(table)?,
        _ => {
            return Err(FieldError::new(
                "policies",
                "hold a number with a fraction, or nothing where something should be",
            ));
        }
    })
}
