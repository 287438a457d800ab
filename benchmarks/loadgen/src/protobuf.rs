//! Protobuf's wire format: varints and fields.

/// One field of a message. A number is in `value`, everything else in `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub number: u32,
    pub value: u64,
    pub bytes: &'a [u8],
}

/// Iterates over the fields of a message, in order. Stops early where the message is malformed.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        let tag = read_varint(&mut self.0)?;
        let (mut value, mut bytes) = (0, &[][..]);
        match tag & 7 {
            0 => value = read_varint(&mut self.0)?,
            1 => value = u64::from_le_bytes(*take(&mut self.0, 8)?.first_chunk()?),
            2 => {
                let length = read_varint(&mut self.0)? as usize;
                bytes = take(&mut self.0, length)?;
            }
            5 => value = u64::from(u32::from_le_bytes(*take(&mut self.0, 4)?.first_chunk()?)),
            _ => return None,
        }
        Some(Field { number: (tag >> 3) as u32, value, bytes })
    }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// Reads a varint from the front of `rest`. Returns None if it is truncated or longer than 64 bits.
#[inline]
pub fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0);
    while shift < 64 {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
        shift += 7;
    }
    None
}

#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that holds bytes, a string or a message.
#[inline]
pub fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
