//! Integers and bytes, written and read; every read is checked.

use super::Damaged;

/// Appends an unsigned LEB128 integer.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed integer, zigzag coded.
pub fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

/// Appends a number as its difference from another.
pub fn put_difference(out: &mut Vec<u8>, to: u32, from: u32) {
    put_signed(out, i64::from(to) - i64::from(from));
}

/// Reads varints and bytes; every read is checked.
#[derive(Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    row: &'static str,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`; `row` names them in errors.
    pub fn new(bytes: &'a [u8], row: &'static str) -> Self {
        Self { bytes, at: 0, row }
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How much has been read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What is wrong with the bytes at this place.
    pub fn damaged(&self) -> Damaged {
        Damaged {
            row: self.row,
            at: self.at,
        }
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Damaged`] at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Damaged> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.damaged())?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`Damaged`] when there are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let end = self.at.checked_add(len).ok_or_else(|| self.damaged())?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.damaged())?;
        self.at = end;
        Ok(taken)
    }

    /// An unsigned LEB128 integer.
    ///
    /// # Errors
    /// [`Damaged`] at the end, or when it does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Damaged> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(self.damaged());
            }
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.damaged())
    }

    /// A varint that fits 32 bits.
    ///
    /// # Errors
    /// [`Damaged`] when it does not.
    #[inline]
    pub fn varint32(&mut self) -> Result<u32, Damaged> {
        let n = self.varint()?;
        u32::try_from(n).map_err(|_| self.damaged())
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`Damaged`] when there are fewer.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, Damaged> {
        let bytes = self.take(4)?;
        Ok(bytes.try_into().map(u32::from_le_bytes).unwrap_or_default())
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// A signed integer, zigzag coded.
    ///
    /// # Errors
    /// As for [`Cursor::varint`].
    #[inline]
    pub fn signed(&mut self) -> Result<i64, Damaged> {
        let coded = self.varint()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// A number that was stored as its difference from another.
    ///
    /// # Errors
    /// [`Damaged`] when the number does not fit 32 bits.
    #[inline]
    pub fn difference(&mut self, from: u32) -> Result<u32, Damaged> {
        let to = i64::from(from)
            .checked_add(self.signed()?)
            .ok_or_else(|| self.damaged())?;
        u32::try_from(to).map_err(|_| self.damaged())
    }
}
