//! Protobuf's wire format, read strictly: what protobuf's own parser refuses is refused here.

/// The bytes are no message.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A result of reading.
pub type Read<T> = Result<T, Malformed>;

/// Groups within groups, messages within messages.
pub const DEPTH_MAX: u32 = 100;

/// One field: its number and what stands there.
pub enum Field<'a> {
    /// A varint.
    Varint(u32, u64),
    /// Eight bytes.
    Fixed64(u32, u64),
    /// Four bytes.
    Fixed32(u32, u32),
    /// Text, bytes, a message, or packed numbers.
    Bytes(u32, &'a [u8]),
    /// A group, skipped.
    Group,
}

/// Walks one message's fields.
pub struct Fields<'a> {
    left: &'a [u8],
    depth: u32,
}

impl<'a> Fields<'a> {
    /// Walk a message that lies `depth` messages deep.
    pub fn of(message: &'a [u8], depth: u32) -> Fields<'a> {
        Fields {
            left: message,
            depth,
        }
    }

    /// The next field; None at the end.
    #[inline]
    pub fn step(&mut self) -> Read<Option<Field<'a>>> {
        if self.left.is_empty() {
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
    fn tag(&mut self) -> Read<u32> {
        let first = self.left[0];
        if first < 0x80 {
            self.left = &self.left[1..];
            return Ok(u32::from(first));
        }
        let mut value = 0_u64;
        for place in 0..5 {
            let octet = *self.left.get(place).ok_or(Malformed)?;
            value |= u64::from(octet & 0x7f) << (7 * place);
            if octet < 0x80 {
                self.left = &self.left[place + 1..];
                return u32::try_from(value).map_err(|_| Malformed);
            }
        }
        Err(Malformed)
    }

    #[inline]
    fn varint(&mut self) -> Read<u64> {
        let (value, length) = varint(self.left)?;
        self.left = &self.left[length..];
        Ok(value)
    }

    #[inline]
    fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.varint()?;
        if length > i32::MAX as u64 {
            return Err(Malformed);
        }
        let (bytes, left) = self.left.split_at_checked(length as usize).ok_or(Malformed)?;
        self.left = left;
        Ok(bytes)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (bytes, left) = self.left.split_first_chunk::<N>().ok_or(Malformed)?;
        self.left = left;
        Ok(*bytes)
    }

    /// Skip to the end of group `number`. Nothing is recursive that a caller could deepen at will.
    fn skip_group(&mut self, number: u32, depth: u32) -> Read<()> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            if self.left.is_empty() || depth as usize + open.len() > DEPTH_MAX as usize {
                return Err(Malformed);
            }
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

/// Read a varint: its value and length.
#[inline]
pub fn varint(bytes: &[u8]) -> Read<(u64, usize)> {
    if let Some(&first) = bytes.first() {
        if first < 0x80 {
            return Ok((u64::from(first), 1));
        }
    }
    let mut value = 0_u64;
    for (place, &octet) in bytes.iter().take(10).enumerate() {
        // Of a tenth byte protobuf keeps the one bit that fits.
        value |= u64::from(octet & 0x7f) << (7 * place);
        if octet < 0x80 {
            return Ok((value, place + 1));
        }
    }
    Err(Malformed)
}

/// Text: UTF-8 or nothing.
#[inline]
pub fn text(bytes: &[u8]) -> Read<&str> {
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

/// Append a varint field; zero is not written, as proto3 has it.
#[inline]
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number << 3));
        put_varint(out, value);
    }
}

/// Bytes of a varint.
#[inline]
pub fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// How far a message's top level was walked and why no further; words as gateway/wire.py has them.
pub fn field_lengths(message: &[u8], field: u64, fields_max: usize) -> Result<Vec<usize>, String> {
    let mut lengths = Vec::new();
    let (mut offset, end) = (0_usize, message.len());
    for _ in 0..fields_max {
        if offset == end {
            return Ok(lengths);
        }
        let start = offset;
        let (tag, behind) = varint_at(message, offset)?;
        offset = behind;
        let mut length = 0;
        match tag & 7 {
            2 => {
                let (said, behind) = varint_at(message, offset)?;
                length = said;
                offset = behind.saturating_add(usize::try_from(said).unwrap_or(usize::MAX));
            }
            0 => offset = varint_at(message, offset)?.1,
            1 => offset += 8,
            5 => offset += 4,
            kind => return Err(format!("wire type {kind} at {start}")),
        }
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

fn varint_at(message: &[u8], offset: usize) -> Result<(u64, usize), String> {
    let mut value = 0_u64;
    let upto = message.len().min(offset.saturating_add(10));
    for (place, &octet) in message[offset.min(upto)..upto].iter().enumerate() {
        value |= u64::from(octet & 0x7f).checked_shl(7 * place as u32).unwrap_or(0);
        if octet < 0x80 {
            return Ok((value, offset + place + 1));
        }
    }
    Err(format!("no number ends at {offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_as_written() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_length(value));
            assert_eq!(varint(&bytes), Ok((value, bytes.len())));
        }
        assert_eq!(varint(&[0xff; 10]), Err(Malformed));
    }
}
