//! Bytes as the numbers that they are, without a copy.

/// Little-endian float32 in `bytes`, on a little-endian machine. None: the bytes are not aligned, or not
/// whole numbers.
pub fn floats(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: every four bytes are a float32.
    let (before, numbers, behind) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && behind.is_empty()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aligned_whole_numbers_are_read_in_place() {
        let bytes: Vec<u8> = [1.5_f32, -2.0, 0.25].iter().flat_map(|v| v.to_le_bytes()).collect();
        let begin = (0..4).find(|begin| floats(&bytes[*begin..begin + 8]).is_some());
        let begin = begin.expect("one of four neighbours is aligned");
        assert_eq!(floats(&bytes[begin..begin + 8]).map(<[f32]>::len), Some(2));
        assert_eq!(floats(&bytes[begin + 1..begin + 9]), None);
        assert_eq!(floats(&bytes[begin..begin + 7]), None);
        if begin == 0 {
            assert_eq!(floats(&bytes), Some(&[1.5, -2.0, 0.25][..]));
        }
    }
}
