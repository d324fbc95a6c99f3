//! Masking: the XOR with a 4-byte key that every client frame carries (section 5.3).
//!
//! Owns the loop; called by the decoder for each stretch of payload as it arrives. It touches
//! every byte that clients send, so it is written for the compiler to vectorise.

/// Unmasks `data` in place, and returns the key turned so that it fits the byte that follows.
///
/// Section 5.3: "Octet i of the transformed data ("transformed-octet-i") is the XOR of octet i of
/// the original data ("original-octet-i") with octet at index i modulo 4 of the masking key
/// ("masking-key-octet-j")". Masking and unmasking are the same operation.
pub(crate) fn unmask(data: &mut [u8], key: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Eight bytes at a time without a dependency between the steps: the compiler turns this into
    // SIMD of whatever width the target has, which is why it is not done by hand.
    let (words, tail) = data.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
    let mut next = key;
    next.rotate_left(tail.len() % 4);
    next
}

#[cfg(test)]
mod tests {
    use super::unmask;

    #[test]
    fn the_example_of_the_rfc() {
        let mut data = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut data, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&data, b"Hello");
    }

    #[test]
    fn any_two_stretches_equal_one() {
        let plain: Vec<u8> = (0..100).collect();
        let key = [1, 20, 77, 200];
        let mut whole = plain.clone();
        unmask(&mut whole, key);
        for split in 0..=plain.len() {
            let mut parts = plain.clone();
            let (head, tail) = parts.split_at_mut(split);
            let next = unmask(head, key);
            unmask(tail, next);
            assert_eq!(parts, whole, "split at {split}");
        }
        for (i, byte) in whole.iter().enumerate() {
            assert_eq!(*byte, plain[i] ^ key[i % 4], "byte {i}");
        }
    }
}
