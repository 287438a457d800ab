//! Protobuf's wire format. What protobuf's own parser refuses is refused here too.

/// The bytes are not a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The result of reading a message.
pub type ReadResult<T> = Result<T, Malformed>;

/// How deep messages and groups may be nested.
pub const DEPTH_MAX: u32 = 100;

/// One field, as its number and its value.
pub enum Field<'a> {
    /// Wire type VARINT.
    Varint(u32, u64),
    /// Wire type I64: eight bytes, little-endian.
    Fixed64(u32, u64),
    /// Wire type I32: four bytes, little-endian.
    Fixed32(u32, u32),
    /// Wire type LEN: text, bytes, a message, or packed numbers.
    Bytes(u32, &'a [u8]),
    /// A group, which was skipped.
    Group,
}

/// Reads the fields of a message, one after the other.
pub struct FieldReader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> FieldReader<'a> {
    /// Read a message that is nested in `depth` other ones.
    pub fn new(message: &'a [u8], depth: u32) -> FieldReader<'a> {
        FieldReader {
            rest: message,
            depth,
        }
    }

    /// The next field. None: the message ends.
    #[inline]
    pub fn next_field(&mut self) -> ReadResult<Option<Field<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.tag()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed);
        }
        let field = match tag & 7 {
            0 => Field::Varint(number, self.varint()?),
            1 => Field::Fixed64(number, u64::from_le_bytes(self.fixed()?)),
            2 => Field::Bytes(number, self.bytes()?),
            3 => {
                self.skip_group(number, self.depth)?;
                Field::Group
            }
            5 => Field::Fixed32(number, u32::from_le_bytes(self.fixed()?)),
            _ => return Err(Malformed),
        };
        Ok(Some(field))
    }

    #[inline]
    fn tag(&mut self) -> ReadResult<u32> {
        let first = self.rest[0];
        if first < 0x80 {
            self.rest = &self.rest[1..];
            return Ok(u32::from(first));
        }
        let mut value = 0_u64;
        for index in 0..5 {
            let octet = *self.rest.get(index).ok_or(Malformed)?;
            value |= u64::from(octet & 0x7f) << (7 * index);
            if octet < 0x80 {
                self.rest = &self.rest[index + 1..];
                return u32::try_from(value).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    #[inline]
    fn varint(&mut self) -> ReadResult<u64> {
        let (value, length) = varint(self.rest)?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    #[inline]
    fn bytes(&mut self) -> ReadResult<&'a [u8]> {
        let length = self.varint()?;
        if length > i32::MAX as u64 {
            return Err(Malformed);
        }
        let (bytes, rest) = self.rest.split_at_checked(length as usize).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> ReadResult<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Skip to the end of group `number`. The loop keeps its own stack, because a caller decides how
    /// deep groups are nested.
    fn skip_group(&mut self, number: u32, depth: u32) -> ReadResult<()> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            if self.rest.is_empty() || depth as usize + open.len() > DEPTH_MAX as usize {
                return Err(Malformed);
            }
            // Read a tag, and skip its value. Nested groups are pushed and popped.
            let tag = self.tag()?;
            let number = tag >> 3;
            if number == 0 {
                return Err(Malformed);
            }
            match tag & 7 {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.fixed::<8>()?;
                }
                2 => {
                    self.bytes()?;
                }
                3 => open.push(number),
                4 if number == innermost => {
                    open.pop();
                }
                5 => {
                    self.fixed::<4>()?;
                }
                _ => return Err(Malformed),
            }
        }
        Ok(())
    }
}

/// Read a varint. Returns its value and its length in bytes.
#[inline]
pub fn varint(bytes: &[u8]) -> ReadResult<(u64, usize)> {
    if let Some(&first) = bytes.first() {
        if first < 0x80 {
            return Ok((u64::from(first), 1));
        }
    }
    let mut value = 0_u64;
    for (index, &octet) in bytes.iter().take(10).enumerate() {
        // As in protobuf, only one bit of a tenth byte fits, and the others are dropped.
        value |= u64::from(octet & 0x7f) << (7 * index);
        if octet < 0x80 {
            return Ok((value, index + 1));
        }
    }
    Err(Malformed)
}

/// Read a text, which has to be UTF-8.
#[inline]
pub fn text(bytes: &[u8]) -> ReadResult<&str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

/// Append a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Append a length-delimited field.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Append a varint field. As in proto3, zero is not written.
#[inline]
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number << 3));
        put_varint(out, value);
    }
}

/// The length of a varint in bytes.
#[inline]
pub fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The length of every length-delimited field `field` at a message's top level. The error says where
/// the message is malformed, with the text of gateway/transport/protobuf_scan.py.
pub fn field_lengths(message: &[u8], field: u64, fields_max: usize) -> Result<Vec<usize>, String> {
    let mut lengths = Vec::new();
    let (mut offset, end) = (0_usize, message.len());
    for _ in 0..fields_max {
        if offset == end {
            return Ok(lengths);
        }
        // Read the tag, and find the end of its value.
        let start = offset;
        let (tag, end_of_tag) = varint_at(message, offset)?;
        offset = end_of_tag;
        let mut length = 0;
        match tag & 7 {
            2 => {
                let (announced, start_of_bytes) = varint_at(message, offset)?;
                length = announced;
                offset =
                    start_of_bytes.saturating_add(usize::try_from(announced).unwrap_or(usize::MAX));
            }
            0 => offset = varint_at(message, offset)?.1,
            1 => offset += 8,
            5 => offset += 4,
            kind => return Err(format!("wire type {kind} at {start}")),
        }
        // Note the length of the fields that are asked for.
        if offset > end {
            return Err(format!("a field at {start} ends at {offset}, behind the end at {end}"));
        }
        if tag & 7 == 2 && tag >> 3 == field {
            lengths.push(length as usize);
        }
    }
    if offset < end {
        return Err(format!("more than {fields_max} fields"));
    }
    Ok(lengths)
}

/// Read a varint at `offset`. Returns its value and the offset behind it.
fn varint_at(message: &[u8], offset: usize) -> Result<(u64, usize), String> {
    let mut value = 0_u64;
    let upto = message.len().min(offset.saturating_add(10));
    for (index, &octet) in message[offset.min(upto)..upto].iter().enumerate() {
        value |= u64::from(octet & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if octet < 0x80 {
            return Ok((value, offset + index + 1));
        }
    }
    Err(format!("no number ends at {offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_reads_what_put_varint_wrote() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_length(value));
            assert_eq!(varint(&bytes), Ok((value, bytes.len())));
        }
        assert_eq!(varint(&[0xff; 10]), Err(Malformed));
    }
}
