//! Whether a request that was read is one that is served, and its columns.

use std::borrow::Cow;
use std::sync::Arc;

use super::*;

/// See `decode`.
pub(super) fn check(
    parsed: &Parsed<'_>,
    shapes: &Shapes,
    limits: &NameLimits,
) -> Result<Call, Refusal> {
    let shape = shape_of(parsed.model, shapes)?;
    check_outputs(parsed)?;
    let tensors = by_name(parsed, shape)?;
    let rows = rows_of(parsed, &tensors, shape)?;
    check_rows(rows, shape)?;
    let raw = !parsed.raw.is_empty();
    let (mut lengths, mut ids, mut values): (Vec<u8>, Vec<u8>, Cow<'_, [u8]>) =
        (Vec::new(), Vec::new(), Cow::Borrowed(&[]));
    if let Some(at) = tensors.keys {
        let count = rows * shape.entities;
        let read = if raw {
            Cow::Owned(raw_keys(parsed.raw[at], count)?)
        } else {
            Cow::Borrowed(&parsed.inputs[at].items)
        };
        counted(KEYS, read.len(), count)?;
        for (place, key) in read.iter().enumerate() {
            let row = place / shape.entities;
            let refused =
                |why: &str| Refusal::invalid(format!("tensor '{KEYS}', row {row}: {why}"));
            let key = text(key).map_err(|_| refused("an entity id is not UTF-8"))?;
            check_id(key).map_err(|why| refused(&why))?;
            lengths.push(key.len() as u8);
            ids.extend_from_slice(key.as_bytes());
        }
    }
    if let Some(at) = tensors.inputs {
        let count = rows * shape.width();
        let floats = if raw { parsed.raw[at] } else { &parsed.inputs[at].floats };
        if raw && floats.len() != 4 * count {
            return Err(Refusal::invalid(format!(
                "tensor '{INPUTS}' has {} raw bytes; its shape is {} of them",
                floats.len(),
                4 * count
            )));
        }
        counted(INPUTS, floats.len() / 4, count)?;
        values = Cow::Borrowed(floats);
    }
    let (sticky, asked_id) = parameters(parsed)?;
    check_text("id", parsed.id, limits.request_id_bytes_max)?;
    let request_id = asked_id.unwrap_or(parsed.id);
    check_text("sticky_key", sticky, limits.name_bytes_max)?;
    check_text("request_id", request_id, limits.request_id_bytes_max)?;
    check_text("model_version", parsed.version, limits.name_bytes_max)?;
    check_finite(&values, shape)?;
    let mut block = values.into_owned();
    for part in [&lengths[..], &ids, sticky.as_bytes(), request_id.as_bytes()] {
        block.extend_from_slice(part);
    }
    block.extend_from_slice(parsed.version.as_bytes());
    Ok(Call {
        shape: Arc::clone(shape),
        rows: rows as u32,
        criticality: 0,
        sticky: sticky.len() as u16,
        request_id: request_id.len() as u16,
        pin: parsed.version.len() as u16,
        block,
    })
}

fn check_outputs(parsed: &Parsed<'_>) -> Result<(), Refusal> {
    for (place, (name, parameters)) in parsed.outputs.iter().enumerate() {
        if *name != SCORES {
            return Err(Refusal::invalid(format!(
                "output {} is unknown; there is one, '{SCORES}'",
                shown(name)
            )));
        }
        if place > 0 {
            let times = parsed.outputs.len();
            return Err(Refusal::invalid(format!("output '{SCORES}' is asked for {times} times")));
        }
        if !parameters.is_empty() {
            return Err(Refusal::invalid(format!(
                "output '{SCORES}' has {} parameters; none is known",
                parameters.len()
            )));
        }
    }
    Ok(())
}

/// Where the tensors stand in the request.
#[derive(Default)]
struct Tensors {
    keys: Option<usize>,
    inputs: Option<usize>,
    /// As they were sent.
    order: Vec<usize>,
}

fn by_name(parsed: &Parsed<'_>, shape: &Shape) -> Result<Tensors, Refusal> {
    let raw = !parsed.raw.is_empty();
    if raw && parsed.raw.len() != parsed.inputs.len() {
        return Err(Refusal::invalid(format!(
            "raw_input_contents has {} items for {} tensors; send one a tensor, in their order",
            parsed.raw.len(),
            parsed.inputs.len()
        )));
    }
    let mut tensors = Tensors::default();
    for (place, tensor) in parsed.inputs.iter().enumerate() {
        let name = tensor.name;
        let events = match name {
            KEYS if shape.entities > 0 => &mut tensors.keys,
            INPUTS if shape.width() > 0 => &mut tensors.inputs,
            _ => {
                return Err(Refusal::invalid(format!(
                    "tensor {} is none of model '{}'; it takes {}",
                    shown(name),
                    shape.model,
                    shape.tensors_repr
                )))
            }
        };
        if events.replace(place).is_some() {
            return Err(Refusal::invalid(format!("tensor '{name}' is sent twice")));
        }
        tensors.order.push(place);
        check_tensor(tensor, raw)?;
    }
    for (name, wanted, events) in
        [(KEYS, shape.entities > 0, tensors.keys), (INPUTS, shape.width() > 0, tensors.inputs)]
    {
        if wanted && events.is_none() {
            return Err(Refusal::invalid(format!(
                "tensor '{name}' is not sent; model '{}' takes {}",
                shape.model, shape.tensors_repr
            )));
        }
    }
    Ok(tensors)
}

fn check_tensor(tensor: &Tensor<'_>, raw: bool) -> Result<(), Refusal> {
    let name = tensor.name;
    let (datatype, home) = if name == KEYS { ("BYTES", 7) } else { ("FP32", 5) };
    if tensor.datatype != datatype {
        return Err(Refusal::invalid(format!(
            "tensor '{name}' has datatype {}; it is {datatype}",
            shown(tensor.datatype)
        )));
    }
    if !tensor.parameters.is_empty() {
        let count = tensor.parameters.len();
        return Err(Refusal::invalid(format!(
            "tensor '{name}' has {count} parameters; none is known"
        )));
    }
    let mut filled = (0..8).filter(|field| tensor.filled[*field]);
    if raw {
        if let Some(first) = filled.next() {
            return Err(Refusal::invalid(format!(
                "tensor '{name}' has {} and raw_input_contents; send one kind",
                CONTENTS[first]
            )));
        }
    } else if let Some(stranger) = filled.find(|field| *field != home) {
        return Err(Refusal::invalid(format!(
            "tensor '{name}' has {}; {datatype} values go into {}",
            CONTENTS[stranger], CONTENTS[home]
        )));
    }
    Ok(())
}

fn rows_of(parsed: &Parsed<'_>, tensors: &Tensors, shape: &Shape) -> Result<usize, Refusal> {
    let mut rows: Option<i64> = None;
    for at in &tensors.order {
        let tensor = &parsed.inputs[*at];
        let name = tensor.name;
        let width = if name == KEYS { shape.entities } else { shape.width() };
        let sizes = &tensor.shape;
        let fits = tensor.dimensions == 2
            && sizes[1] == width as i64
            && (0..=ROWS_MAX).contains(&sizes[0]);
        if !fits {
            return Err(Refusal::invalid(format!(
                "tensor '{name}' has {} dimensions, the first of them {sizes:?}; model '{}' takes \
                 [rows, {width}]",
                tensor.dimensions, shape.model
            )));
        }
        if let Some(before) = rows {
            if before != sizes[0] {
                return Err(Refusal::invalid(format!(
                    "tensor '{name}' has {} rows, the one before it {before}",
                    sizes[0]
                )));
            }
        }
        rows = Some(sizes[0]);
    }
    Ok(rows.unwrap_or(0) as usize)
}

/// Take items apart: each a little-endian length and its bytes.
fn raw_keys(blob: &[u8], count: usize) -> Result<Vec<&[u8]>, Refusal> {
    let mut items = Vec::new();
    let mut offset = 0;
    while offset < blob.len() && items.len() <= count {
        let Some(four) = blob[offset..].first_chunk::<4>() else {
            return Err(Refusal::invalid(format!(
                "tensor '{KEYS}' ends within a length, at byte {offset} of {}",
                blob.len()
            )));
        };
        let length = u32::from_le_bytes(*four) as usize;
        offset += 4;
        let Some(item) = blob.get(offset..offset.saturating_add(length)) else {
            return Err(Refusal::invalid(format!(
                "tensor '{KEYS}' promises {length} bytes at byte {offset} of {}",
                blob.len()
            )));
        };
        items.push(item);
        offset += length;
    }
    Ok(items)
}

fn counted(name: &str, seen: usize, count: usize) -> Result<(), Refusal> {
    if seen == count {
        return Ok(());
    }
    let seen = if seen > count { format!("more than {count}") } else { seen.to_string() };
    Err(Refusal::invalid(format!("tensor '{name}' holds {seen} elements; its shape is {count}")))
}

/// The request's own parameters: sticky_key and request_id.
fn parameters<'a>(parsed: &Parsed<'a>) -> Result<(&'a str, Option<&'a str>), Refusal> {
    let (mut sticky, mut request_id) = ("", None);
    for (name, value) in &parsed.parameters {
        if !matches!(*name, "sticky_key" | "request_id") {
            return Err(Refusal::invalid(format!(
                "parameter {} is unknown; there are ['sticky_key', 'request_id']",
                shown(name)
            )));
        }
        let Some(value) = value else {
            let words = format!("parameter '{name}' is no string_param; send text");
            return Err(Refusal::invalid(words));
        };
        if *name == "sticky_key" {
            sticky = value;
        } else {
            request_id = Some(*value);
        }
    }
    Ok((sticky, request_id))
}

/// A stranger's name as our words may repeat it: as Python's `ascii` of its first 40 characters.
fn shown(name: &str) -> String {
    let mut short: String = name.chars().take(NAME_SHOWN_MAX).collect();
    if short.len() < name.len() {
        short.push_str("...");
    }
    let quote = if short.contains('\'') && !short.contains('"') { '"' } else { '\'' };
    let mut ascii = String::from(quote);
    for c in short.chars() {
        match c {
            '\\' => ascii.push_str("\\\\"),
            '\n' => ascii.push_str("\\n"),
            '\r' => ascii.push_str("\\r"),
            '\t' => ascii.push_str("\\t"),
            c if c == quote => ascii.extend(['\\', c]),
            ' '..='~' => ascii.push(c),
            c if (c as u32) < 0x100 => ascii.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => ascii.push_str(&format!("\\u{:04x}", c as u32)),
            c => ascii.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    ascii.push(quote);
    ascii
}
