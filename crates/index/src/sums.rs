//! What one owner, group, project or directory has: sums that a file's share is added to and taken from. Pure.

use purge_model::Seconds;

const DAY: u64 = 86_400;

/// Upper ends of the age histogram, in seconds; what is older comes last.
pub const AGE_BOUNDS: [u64; 6] = [DAY, 7 * DAY, 30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY];

/// Buckets of the age histogram.
pub const AGES: usize = AGE_BOUNDS.len() + 1;

/// Files and apparent bytes of one age, for each of [`AGE_BOUNDS`] and for everything older.
pub type Histogram = [(u64, u128); AGES];

/// The bucket of [`AGE_BOUNDS`] for an age in seconds.
pub fn bucket_of(age: u64) -> usize {
    AGE_BOUNDS
        .iter()
        .position(|bound| age < *bound)
        .unwrap_or(AGE_BOUNDS.len())
}

/// What one file brings to the sums of a ledger.
pub(super) struct Share {
    pub bytes: u64,
    pub allocated: u64,
    /// Size x (whole days present + 1).
    pub byte_days: u128,
    pub last: Seconds,
    pub bucket: usize,
}

impl Share {
    fn takes(&self) -> u64 {
        self.bytes.min(self.allocated)
    }
}

/// What one owner, group, project or directory has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Apparent bytes.
    pub bytes: u128,
    /// Bytes of disk, as `du` counts them.
    pub allocated: u128,
    /// Of each file the smaller of both.
    pub takes: u128,
    /// Sum over files of size x (whole days present + 1).
    pub byte_days: u128,
    /// Oldest and newest last use. Exact as of the count; a file that goes later does not take them along.
    pub span: Option<(Seconds, Seconds)>,
    /// By age of the last use.
    pub ages: Histogram,
}

impl Sums {
    pub(super) fn add(&mut self, share: &Share) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(share.bytes.into());
        self.allocated = self.allocated.saturating_add(share.allocated.into());
        self.takes = self.takes.saturating_add(share.takes().into());
        self.byte_days = self.byte_days.saturating_add(share.byte_days);
        let (oldest, newest) = self.span.unwrap_or((share.last, share.last));
        self.span = Some((oldest.min(share.last), newest.max(share.last)));
        if let Some(age) = self.ages.get_mut(share.bucket) {
            *age = (age.0.saturating_add(1), age.1.saturating_add(share.bytes.into()));
        }
    }

    /// Adds what was counted of other files.
    pub(super) fn merge(&mut self, other: &Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.allocated = self.allocated.saturating_add(other.allocated);
        self.takes = self.takes.saturating_add(other.takes);
        self.byte_days = self.byte_days.saturating_add(other.byte_days);
        self.span = match (self.span, other.span) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        for (age, (files, bytes)) in self.ages.iter_mut().zip(other.ages) {
            *age = (age.0.saturating_add(files), age.1.saturating_add(bytes));
        }
    }

    /// Takes away what [`Sums::add`] added.
    pub(super) fn subtract(&mut self, share: &Share) {
        self.files = self.files.saturating_sub(1);
        if self.files == 0 {
            *self = Self::default();
            return;
        }
        self.bytes = self.bytes.saturating_sub(share.bytes.into());
        self.allocated = self.allocated.saturating_sub(share.allocated.into());
        self.takes = self.takes.saturating_sub(share.takes().into());
        self.byte_days = self.byte_days.saturating_sub(share.byte_days);
        if let Some(age) = self.ages.get_mut(share.bucket) {
            *age = (age.0.saturating_sub(1), age.1.saturating_sub(share.bytes.into()));
        }
    }
}

/// The same for what lies in one directory itself. There may be millions of them, so it takes little memory: 56 bytes, and
/// 16 for each age where there are several. Most directories hold files of one age.
#[derive(Debug, Default)]
pub struct DirSums {
    bytes: u64,
    allocated: u64,
    byte_days: u64,
    /// Beside the first: (bucket, files, bytes) of further ages.
    more: Box<[(u8, u32, u64)]>,
    files: u32,
    oldest: Seconds,
    newest: Seconds,
    /// The age of every file that is not in `more`.
    bucket: u8,
}

impl DirSums {
    /// Whether nothing lies there.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Regular files.
    pub fn files(&self) -> u64 {
        self.files.into()
    }

    /// Apparent bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of disk.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Size-days.
    pub fn byte_days(&self) -> u64 {
        self.byte_days
    }

    /// Oldest and newest last use.
    pub fn span(&self) -> (Seconds, Seconds) {
        (self.oldest, self.newest)
    }

    /// Bucket, files and apparent bytes of each age.
    pub fn ages(&self) -> impl Iterator<Item = (usize, u64, u64)> + Clone {
        let more = self.more.iter();
        let more = more.map(|(bucket, files, bytes)| (usize::from(*bucket), u64::from(*files), *bytes));
        let first = (usize::from(self.bucket), u64::from(self.files), self.bytes);
        let first = more.clone().fold(first, |(bucket, files, bytes), other| {
            (
                bucket,
                files.saturating_sub(other.1),
                bytes.saturating_sub(other.2),
            )
        });
        std::iter::once(first).chain(more)
    }

    pub(super) fn add(&mut self, share: &Share) {
        let bucket = u8::try_from(share.bucket).unwrap_or(u8::MAX);
        if self.files == 0 {
            *self = Self {
                bucket,
                oldest: share.last,
                newest: share.last,
                ..Self::default()
            };
        } else {
            self.add_age((bucket, 1, share.bytes));
        }
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(share.bytes);
        self.allocated = self.allocated.saturating_add(share.allocated);
        self.byte_days = self.byte_days.saturating_add(clip(share.byte_days));
        self.oldest = self.oldest.min(share.last);
        self.newest = self.newest.max(share.last);
    }

    /// Notes that there are files of an age; those of the first are known by what is left.
    fn add_age(&mut self, (bucket, files, bytes): (u8, u32, u64)) {
        if self.bucket == bucket {
            return;
        }
        if self.more.iter().all(|age| age.0 != bucket) {
            let mut more = std::mem::take(&mut self.more).into_vec();
            more.push((bucket, 0, 0));
            self.more = more.into_boxed_slice();
        }
        if let Some(age) = self.more.iter_mut().find(|age| age.0 == bucket) {
            *age = (bucket, age.1.saturating_add(files), age.2.saturating_add(bytes));
        }
    }

    /// Adds what was counted of other files.
    pub(super) fn merge(&mut self, other: Self) {
        if self.is_empty() || other.is_empty() {
            if self.is_empty() {
                *self = other;
            }
            return;
        }
        for (bucket, files, bytes) in other.ages() {
            let files = u32::try_from(files).unwrap_or(u32::MAX);
            self.add_age((u8::try_from(bucket).unwrap_or(u8::MAX), files, bytes));
        }
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.allocated = self.allocated.saturating_add(other.allocated);
        self.byte_days = self.byte_days.saturating_add(other.byte_days);
        self.oldest = self.oldest.min(other.oldest);
        self.newest = self.newest.max(other.newest);
    }

    /// Takes away what [`DirSums::add`] added.
    pub(super) fn subtract(&mut self, share: &Share) {
        if self.files <= 1 {
            *self = Self::default();
            return;
        }
        let of_bucket = |age: &&mut (u8, u32, u64)| usize::from(age.0) == share.bucket;
        if let Some(age) = self.more.iter_mut().find(of_bucket) {
            *age = (age.0, age.1.saturating_sub(1), age.2.saturating_sub(share.bytes));
        }
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(share.bytes);
        self.allocated = self.allocated.saturating_sub(share.allocated);
        self.byte_days = self.byte_days.saturating_sub(clip(share.byte_days));
    }
}

/// More than 18 exabyte-days in one directory are counted as that number.
fn clip(byte_days: u128) -> u64 {
    u64::try_from(byte_days).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_directory_takes_little_memory() {
        assert_eq!(size_of::<DirSums>(), 56);
    }

    fn of_directory(small: &DirSums) -> Sums {
        let mut all = Sums::default();
        if !small.is_empty() {
            all.files = small.files();
            all.bytes = small.bytes().into();
            all.allocated = small.allocated().into();
            // Nothing in these tests takes less than its size.
            all.takes = all.bytes;
            all.byte_days = small.byte_days().into();
            all.span = Some(small.span());
            for (bucket, files, bytes) in small.ages() {
                all.ages[bucket] = (files, bytes.into());
            }
        }
        all
    }

    #[test]
    fn ages_fall_into_the_bucket_that_their_bound_names() {
        let bucket = |days: u64| bucket_of(days * 86_400);
        assert_eq!(
            [0, 1, 6, 7, 29, 30, 364, 365].map(bucket),
            [0, 1, 1, 2, 2, 3, 5, 6]
        );
        assert_eq!(bucket_of(86_399), 0);
        assert_eq!(AGES, 7);
    }

    proptest! {
        /// Counted in two parts and merged is as counted at once, for directories and for owners.
        #[test]
        fn parts_that_are_merged_are_the_whole(files in prop::collection::vec((any::<bool>(), 0u64..1000, 0usize..7), 0..40)) {
            let mut small = [DirSums::default(), DirSums::default(), DirSums::default()];
            let mut large = [Sums::default(), Sums::default(), Sums::default()];
            for (part, n, bucket) in files {
                let share = Share { bytes: n, allocated: n * 2, byte_days: u128::from(n * 3), last: Seconds(n as u32), bucket };
                for i in [usize::from(part), 2] {
                    small[i].add(&share);
                    large[i].add(&share);
                }
            }
            let [mut one, other, whole] = small;
            one.merge(other);
            prop_assert_eq!(of_directory(&one), of_directory(&whole));
            let [mut one, other, whole] = large;
            one.merge(&other);
            prop_assert_eq!(one, whole);
        }

        /// What is kept for a directory equals what is kept for an owner of the same files.
        #[test]
        fn the_small_sums_equal_the_large(steps in prop::collection::vec((any::<bool>(), 0usize..8, 0u64..1000, 0usize..7), 0..60)) {
            let (mut small, mut large) = (DirSums::default(), Sums::default());
            let mut there: Vec<Share> = Vec::new();
            for (add, place, n, bucket) in steps {
                if add || there.is_empty() {
                    let share = Share { bytes: n, allocated: n * 2, byte_days: u128::from(n * 3), last: Seconds(n as u32), bucket };
                    small.add(&share);
                    large.add(&share);
                    there.push(share);
                } else {
                    let share = there.swap_remove(place % there.len());
                    small.subtract(&share);
                    large.subtract(&share);
                }
                prop_assert_eq!(&of_directory(&small), &large);
            }
        }
    }
}
