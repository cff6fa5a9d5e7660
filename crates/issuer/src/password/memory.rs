//! The memory that argon2 fills: allocated once for each thread, because fresh memory costs as much as the hash of it.

use argon2::{Argon2, Block, Error};

/// One thread's memory.
pub(super) struct Memory {
    blocks: Vec<Block>,
    /// Blocks that are kept; what needs more gets its own for as long as it runs.
    most: usize,
}

impl Memory {
    /// Nothing is allocated before the first hash.
    pub(super) fn new(most: usize) -> Self {
        Self { blocks: Vec::new(), most }
    }

    /// Argon2 (RFC 9106) of a password. Whatever stood in the memory before, it is written before it is read.
    pub(super) fn hash(&mut self, argon2: &Argon2<'_>, password: &[u8], salt: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let needed = argon2.params().block_count();
        if needed > self.most {
            return argon2.hash_password_into(password, salt, out);
        }
        if let Some(missing) = needed.checked_sub(self.blocks.len()) {
            self.blocks.try_reserve_exact(missing).map_err(|_| Error::OutOfMemory)?;
            self.blocks.resize(needed, Block::new());
        }
        argon2.hash_password_into_with_memory(password, salt, out, self.blocks.as_mut_slice())
    }
}

#[cfg(test)]
impl Memory {
    /// Whether a hash was ever made in it.
    pub(super) fn was_filled(&self) -> bool {
        !self.blocks.is_empty() && self.blocks.iter().all(|block| block.as_ref().iter().any(|word| *word != 0))
    }
}

#[cfg(test)]
mod tests {
    use argon2::{Algorithm, Params, Version};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    use super::*;

    const SALT: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const PASSWORD: &[u8] = b"correct horse battery staple";

    fn argon2(memory: u32, iterations: u32, lanes: u32) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(memory, iterations, lanes, Some(32)).unwrap())
    }

    fn hashed(memory: &mut Memory, argon2: &Argon2<'_>, password: &[u8]) -> String {
        let mut out = [0; 32];
        memory.hash(argon2, password, &SALT, &mut out).unwrap();
        STANDARD_NO_PAD.encode(out)
    }

    #[test]
    fn used_memory_changes_no_result_and_is_used_again() {
        let mut memory = Memory::new(256);
        assert!(memory.blocks.is_empty());
        let (large, small) = (argon2(256, 3, 2), argon2(64, 1, 1));
        hashed(&mut memory, &large, b"something else");
        let at = memory.blocks.as_ptr();
        assert!(memory.was_filled());
        // Made by the reference implementation.
        assert_eq!(hashed(&mut memory, &large, PASSWORD), "5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8");
        assert_eq!(hashed(&mut memory, &small, PASSWORD), "ktxdZwGWI4aL3geSdeUi9LfoIT00FO2Fy8KsikERcog");
        assert_eq!(hashed(&mut memory, &large, PASSWORD), "5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8");
        assert_eq!(memory.blocks.as_ptr(), at);
        assert_eq!(memory.blocks.capacity(), 256);
    }

    #[test]
    fn what_needs_more_than_is_kept_gets_its_own() {
        let mut memory = Memory::new(64);
        assert_eq!(hashed(&mut memory, &argon2(256, 3, 2), PASSWORD), "5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8");
        assert_eq!(memory.blocks.capacity(), 0);
    }

    #[test]
    fn the_default_cost_is_what_the_reference_implementation_makes_of_it() {
        let mut memory = Memory::new(19_456);
        assert_eq!(hashed(&mut memory, &argon2(19_456, 2, 1), PASSWORD), "gYJZtjEAJqjg26xdLmknq8/bB7MiWPrE9hsYuA+SkIU");
    }
}
