//! Avro's primitive encodings, read from a slice. Every length is checked against what is there.

use crate::domain::poison::{Poison, Reason};

/// The unread rest of a body.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

/// A body that is not what its schema says.
pub fn broken(detail: impl Into<String>) -> Poison {
    Poison::new(Reason::InvalidAvro, detail)
}

impl<'a> Bytes<'a> {
    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Poison> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(broken(format!("the body ends {} bytes too early", count - self.0.len())));
        };
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Poison> {
        let Some((byte, rest)) = self.0.split_first() else { return Err(broken("the body ends too early")) };
        self.0 = rest;
        Ok(*byte)
    }

    /// A variable-length zig-zag number.
    #[inline]
    pub fn long(&mut self) -> Result<i64, Poison> {
        let mut bits = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // The tenth byte has room for one bit only.
            if shift == 63 && byte > 1 {
                break;
            }
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(broken("a number has more than 64 bits"))
    }

    /// A number of 32 bits in the same encoding.
    pub fn int(&mut self) -> Result<i32, Poison> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| broken(format!("the int {long} has more than 32 bits")))
    }

    /// A length-prefixed run of bytes.
    #[inline]
    pub fn run(&mut self) -> Result<&'a [u8], Poison> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| broken(format!("a length is {length}")))?;
        self.take(length)
    }

    /// A length-prefixed text.
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, Poison> {
        std::str::from_utf8(self.run()?).map_err(|error| broken(format!("a string is not UTF-8: {error}")))
    }

    /// 0 or 1.
    pub fn boolean(&mut self) -> Result<bool, Poison> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(broken(format!("a boolean is {other}"))),
        }
    }

    /// Four bytes, little endian.
    pub fn float(&mut self) -> Result<f32, Poison> {
        let bytes = self.take(4)?;
        Ok(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Eight bytes, little endian.
    pub fn double(&mut self) -> Result<f64, Poison> {
        let (low, high) = (self.take(4)?, self.take(4)?);
        Ok(f64::from_le_bytes([low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]]))
    }

    /// The number of entries in the next block of a list or map; 0 ends it.
    pub fn block(&mut self) -> Result<u64, Poison> {
        let count = self.long()?;
        if count < 0 {
            self.long()?; // the block's size in bytes, of use only to those who skip
        }
        Ok(count.unsigned_abs())
    }
}
