//! A place in the table of connections, during one wait.

/// Finds the connection that waits there until that is taken. The next wait in the same place has another generation, so what comes late
/// finds nothing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Slot {
    pub(super) index: u32,
    generation: u32,
}

impl Slot {
    /// Before the first wait.
    pub(super) fn new(index: u32) -> Self {
        Slot { index, generation: 0 }
    }

    /// Of the next wait in this place.
    pub(super) fn renewed(self) -> Self {
        Slot { generation: self.generation.wrapping_add(1), ..self }
    }

    /// As one number, for the kernel.
    pub(super) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Of this [token](Slot::token).
    pub(super) fn of_token(token: u64) -> Self {
        Slot { index: token as u32, generation: (token >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_index_and_generation() {
        let slot = Slot { index: 7, generation: u32::MAX };
        for slot in [Slot::new(0), Slot::new(u32::MAX - 1), slot, slot.renewed()] {
            assert_eq!(Slot::of_token(slot.token()), slot);
        }
        assert_ne!(slot.renewed(), slot);
    }
}
