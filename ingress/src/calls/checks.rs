//! Checks that every decoder makes, with the messages of gateway/transport/decode.py.

use std::sync::Arc;

use crate::calls::refusal::{code, Refusal};
use crate::calls::shape::{ModelShape, ModelShapes, ID_BYTES_MAX};

/// Find the shape of a model by its name.
pub fn find_shape<'a>(
    model: &str,
    shapes: &'a ModelShapes,
) -> Result<&'a Arc<ModelShape>, Refusal> {
    if let Some(shape) = shapes.get(model.as_bytes()) {
        return Ok(shape);
    }
    let bytes = model.as_bytes();
    let allowed = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | b'.');
    let valid = !bytes.is_empty()
        && bytes.len() <= 128
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(allowed);
    if !valid {
        return Err(Refusal::invalid(format!(
            "the model's name is {} bytes long or has odd characters; it is 1 to 128 of letters, \
             digits, '_', '-' and '.'",
            bytes.len()
        )));
    }
    let message = format!("model '{model}' is not served here");
    Err(Refusal::new(code::NOT_FOUND, message))
}

/// Refuse a call without rows, or with more than the model takes.
pub fn check_rows(rows: usize, shape: &ModelShape) -> Result<(), Refusal> {
    if rows == 0 {
        return Err(Refusal::invalid("the call has 0 rows; send at least one"));
    }
    if rows > shape.rows_max {
        return Err(Refusal::new(
            code::RESOURCE_EXHAUSTED,
            format!(
                "the call has {rows} rows; model '{}' takes {} a call; send it in parts",
                shape.model, shape.rows_max
            ),
        ));
    }
    Ok(())
}

/// Refuse a text that is too long or holds a control character. `field` is its name for the message.
pub fn check_text(field: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        return Err(Refusal::invalid(format!(
            "{field} is {} bytes long; it must be at most {bytes_max}",
            text.len()
        )));
    }
    if has_control(text.as_bytes()) {
        return Err(Refusal::invalid(format!("{field} holds a control character; remove it")));
    }
    Ok(())
}

/// Check an entity id. The error says what is wrong with it.
pub fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(format!(
            "an entity id is {} bytes long; it must be 1 to {ID_BYTES_MAX} bytes of UTF-8",
            id.len()
        ));
    }
    if has_control(id.as_bytes()) {
        let is_control = |c: char| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}');
        let found = id.chars().enumerate().find(|(_, c)| is_control(*c));
        let (index, found) = found.unwrap_or((0, '\0'));
        return Err(format!(
            "an entity id holds control character U+{:04X} at {index}; remove it",
            found as u32
        ));
    }
    Ok(())
}

/// Whether UTF-8 text holds a control character: C0, DEL or C1.
#[inline]
fn has_control(text: &[u8]) -> bool {
    // Most texts hold none. A loop without branches finds that out with vector instructions.
    let surely_none = text
        .iter()
        .fold(true, |none, &octet| none & (octet >= 0x20) & (octet != 0x7f) & (octet != 0xc2));
    if surely_none {
        return false;
    }
    text.iter().enumerate().any(|(index, &octet)| {
        octet < 0x20
            || octet == 0x7f
            || (octet == 0xc2 && text.get(index + 1).is_some_and(|next| *next < 0xa0))
    })
}

/// Refuse NaN and infinite inputs, if the model does not take them. `inputs` are float32.
pub fn check_finite(inputs: &[u8], shape: &ModelShape) -> Result<(), Refusal> {
    if !shape.nan_inputs_refused {
        return Ok(());
    }
    let unusable = inputs
        .chunks_exact(4)
        .filter(|four| !f32::from_le_bytes([four[0], four[1], four[2], four[3]]).is_finite())
        .count();
    if unusable > 0 {
        return Err(Refusal::invalid(format!(
            "{unusable} inputs are NaN or infinite, and model '{}' does not take them",
            shape.model
        )));
    }
    Ok(())
}
