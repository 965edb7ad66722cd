//! A partition's log on the broker's disk, to be damaged while the broker is stopped.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the fields of a batch stand: base offset, length, then these.
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const RECORDS: usize = 61;

/// The first segment of a partition.
#[derive(Clone)]
pub struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Segment {
    /// Reads the first segment below a server's folder.
    pub fn read(folder: &Path, topic: &str, partition: i32) -> Segment {
        let path = folder.join(format!("data/{topic}-{partition}/00000000000000000000.log"));
        let bytes = fs::read(&path).unwrap();
        Segment { path, bytes }
    }

    /// Writes it back, whole or damaged.
    pub fn write(&self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }

    /// Where the batch that begins at `offset` starts and ends in the file.
    fn batch(&self, offset: i64) -> (usize, usize) {
        let mut start = 0;
        loop {
            let base = i64::from_be_bytes(self.bytes[start..start + 8].try_into().unwrap());
            let length = i32::from_be_bytes(self.bytes[start + 8..start + 12].try_into().unwrap());
            let end = start + 12 + usize::try_from(length).unwrap();
            if base == offset {
                return (start, end);
            }
            start = end;
        }
    }

    /// The codec of a batch: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec(&self, offset: i64) -> u8 {
        let (start, _) = self.batch(offset);
        self.bytes[start + ATTRIBUTES + 1] & 7
    }

    /// Lets the records of a batch rot; its checksum tells.
    pub fn rot(&mut self, offset: i64) {
        let (start, end) = self.batch(offset);
        let middle = start + RECORDS + (end - start - RECORDS) / 2;
        self.bytes[middle] ^= 0xff;
    }

    /// Makes the records of a batch nonsense under a checksum that fits.
    pub fn garble(&mut self, offset: i64) {
        let (start, end) = self.batch(offset);
        self.bytes[start + RECORDS..end].fill(0xa5);
        let crc = crc32c(&self.bytes[start + ATTRIBUTES..end]);
        self.bytes[start + CRC..start + CRC + 4].copy_from_slice(&crc.to_be_bytes());
    }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
