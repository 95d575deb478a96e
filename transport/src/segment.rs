//! The memory of rings, doorbells and events, as files without a name.
//!
//! The manager makes the files and hands each process the descriptors that it needs: one that may be written, or
//! one that was opened anew for reading only and can't be turned into the other. The files can be neither executed
//! nor resized, so a mapping can't be pulled from under anybody.
#![expect(unsafe_code, reason = "memory maps are made and given back here")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use protocol::{
    limits::{RING_BYTES_MAX, RING_BYTES_MIN},
    link::DESCRIPTION_BYTES,
};

use crate::{
    layout::{
        ConsumerWords, MAGIC, PAGE_BYTES, PRODUCER_WORDS_OFFSET, ProducerWords, Record, SLOT_BITS_OFFSET,
        SLOT_SUMMARY_OFFSET, SLOTS, TYPE_HASH_OFFSET, TYPE_NAME_BYTES_MAX, TYPE_NAME_LENGTH_OFFSET,
        TYPE_NAME_OFFSET,
    },
    link::{Description, Linked},
    ring::Memory,
};

/// The two files of one ring.
#[derive(Debug)]
pub struct Files {
    /// Written by the producer.
    pub data: OwnedFd,
    /// Written by the consumer.
    pub consumer: OwnedFd,
}

impl Files {
    /// Makes the files of a ring of `capacity` bytes.
    ///
    /// # Errors
    /// An error of the system calls: no descriptors or no memory left.
    ///
    /// # Panics
    /// When `capacity` is none that [`check_capacity`] accepts.
    pub fn create(capacity: usize) -> io::Result<Files> {
        assert!(check_capacity(capacity), "{capacity} is no capacity of a ring");
        Ok(Files {
            data: create(c"archean-ring", PAGE_BYTES + capacity)?,
            consumer: create(c"archean-consumer", PAGE_BYTES)?,
        })
    }
}

/// `true` for a power of two between [`RING_BYTES_MIN`] and [`RING_BYTES_MAX`].
pub const fn check_capacity(capacity: usize) -> bool {
    capacity.is_power_of_two() && capacity >= RING_BYTES_MIN && capacity <= RING_BYTES_MAX
}

/// Makes a file without a name: `bytes` long, zero, not executable, not resizable.
///
/// # Errors
/// An error of the system calls.
pub fn create(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is a C string.
    let mut raw = unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_NOEXEC_SEAL) };
    if raw < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        // A kernel before 6.3 does not know the flag.
        // SAFETY: as above.
        raw = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    check(raw)?;
    // SAFETY: the descriptor is new, and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: plain system calls on an owned descriptor.
    unsafe {
        check(libc::ftruncate(file.as_raw_fd(), bytes as libc::off_t))?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        check(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals))?;
    }
    Ok(file)
}

/// Opens `file` anew, for reading only: what is mapped from it can't be made writable.
///
/// # Errors
/// An error of the system call; `/proc` must be mounted.
pub fn reopen_read_only(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(std::fs::File::open(path)?.into())
}

/// A mapping; given back when dropped.
#[derive(Debug)]
struct Map {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; who reads and writes through it keeps its own rules.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Address space without memory.
    fn reserve(bytes: usize) -> io::Result<Map> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(map_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Map { start, bytes })
    }

    /// Maps `bytes` of `file` from `offset` on to `at` of the reservation.
    fn place(
        &self,
        at: usize,
        file: BorrowedFd<'_>,
        offset: usize,
        bytes: usize,
        write: bool,
    ) -> io::Result<()> {
        assert!(at + bytes <= self.bytes, "a mapping outside its reservation");
        let protection = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: `at + bytes` lies in the reservation, which is ours alone, so MAP_FIXED replaces nothing else.
        let placed = unsafe {
            let address = self.start.as_ptr().add(at).cast();
            libc::mmap(address, bytes, protection, flags, file.as_raw_fd(), offset as libc::off_t)
        };
        if placed == libc::MAP_FAILED { Err(map_error()) } else { Ok(()) }
    }

    /// A whole file of `bytes` bytes.
    fn whole(file: BorrowedFd<'_>, bytes: usize, write: bool) -> io::Result<Map> {
        check_size(file, bytes)?;
        let map = Map::reserve(bytes)?;
        map.place(0, file, 0, bytes, write)?;
        Ok(map)
    }
}

/// Why a mapping was not made, and what helps.
fn map_error() -> io::Error {
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOMEM) {
        return error;
    }
    let text = "no mapping is left for a ring: close channels, or raise the system's vm.max_map_count";
    io::Error::new(error.kind(), text)
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and whoever points into it borrows from it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A file that is shorter than its mapping would end its reader with SIGBUS.
fn check_size(file: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    // SAFETY: `stat` is plain data that may be zero, and is written by the call.
    let size = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(file.as_raw_fd(), &mut stat))?;
        stat.st_size
    };
    if size < bytes as libc::off_t {
        return Err(io::Error::other(format!("a shared file has {size} bytes, {bytes} are needed")));
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A ring's memory, mapped by one of its two sides.
#[derive(Debug)]
pub struct Mapped {
    /// The producer page, in `data`; the frames follow it.
    start: NonNull<u8>,
    capacity: usize,
    /// What lies at this position or behind it has not arrived yet. Where no link fills the ring, all has.
    arrived: AtomicU64,
    consumer: Map,
    /// Unmapped when it is dropped.
    _data: Map,
}

// SAFETY: `start` points into `data`, which may be used by any thread; so does all else.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

/// The length of a frame that has not arrived; nobody writes it.
static NOT_ARRIVED: AtomicU32 = AtomicU32::new(0);

/// Rings from this size on are mapped in huge pages where the system has them for shared memory.
const HUGE_CAPACITY_MIN: usize = 4 << 20;
/// The size of a huge page, and what mappings are aligned to so that the file's pages can be huge.
const HUGE_PAGE_BYTES: usize = 2 << 20;

impl Mapped {
    /// As the producer maps it: it may write the data file.
    ///
    /// # Errors
    /// An error of the system calls, among them a file that is too short.
    pub fn for_producer(
        data: BorrowedFd<'_>,
        consumer: BorrowedFd<'_>,
        capacity: usize,
    ) -> io::Result<Mapped> {
        Mapped::map(data, consumer, capacity, true, false)
    }

    /// As the consumer maps it: it may write the consumer file.
    ///
    /// # Errors
    /// As for [`for_producer`](Self::for_producer).
    pub fn for_consumer(
        data: BorrowedFd<'_>,
        consumer: BorrowedFd<'_>,
        capacity: usize,
    ) -> io::Result<Mapped> {
        Mapped::map(data, consumer, capacity, false, true)
    }

    /// As a process maps it whose link fills it: it may write both files.
    ///
    /// # Errors
    /// As for [`for_producer`](Self::for_producer).
    pub fn for_link(data: BorrowedFd<'_>, consumer: BorrowedFd<'_>, capacity: usize) -> io::Result<Mapped> {
        let mut mapped = Mapped::map(data, consumer, capacity, true, true)?;
        mapped.arrived = AtomicU64::new(0);
        Ok(mapped)
    }

    /// Maps the consumer file of this ring anew, where it was, so that a link may drain the ring from here. Others may
    /// look at it meanwhile.
    ///
    /// # Errors
    /// An error of the system calls, among them a file that is too short.
    pub fn take_consumer(&self, consumer: BorrowedFd<'_>) -> io::Result<()> {
        check_size(consumer, PAGE_BYTES)?;
        self.consumer.place(0, consumer, 0, PAGE_BYTES, true)
    }

    fn map(
        data: BorrowedFd<'_>,
        consumer: BorrowedFd<'_>,
        capacity: usize,
        write_data: bool,
        write_consumer: bool,
    ) -> io::Result<Mapped> {
        if !check_capacity(capacity) {
            return Err(io::Error::other(format!("{capacity} is no capacity of a ring")));
        }
        check_size(data, PAGE_BYTES + capacity)?;
        let is_huge = capacity >= HUGE_CAPACITY_MIN;
        let map = Map::reserve(PAGE_BYTES + 2 * capacity + if is_huge { HUGE_PAGE_BYTES } else { 0 })?;
        let first = if is_huge { map.start.as_ptr().align_offset(HUGE_PAGE_BYTES) } else { 0 };
        map.place(first, data, 0, PAGE_BYTES + capacity, write_data)?;
        map.place(first + PAGE_BYTES + capacity, data, PAGE_BYTES, capacity, write_data)?;
        let consumer = Map::whole(consumer, PAGE_BYTES, write_consumer)?;
        // SAFETY: `first` lies in the reservation, by the size that it was given.
        let start = unsafe { map.start.add(first) };
        let mapped = Mapped { start, capacity, arrived: AtomicU64::new(u64::MAX), consumer, _data: map };
        if is_huge {
            mapped.advise(0, PAGE_BYTES + capacity, libc::MADV_HUGEPAGE);
        }
        Ok(mapped)
    }

    /// Gives the kernel a hint about the data file's mapping. One that it does not know changes nothing.
    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) {
        assert!(offset + len <= PAGE_BYTES + self.capacity, "advice about what is not mapped");
        // SAFETY: the range lies in the mapping, and the advice that is given keeps its contents.
        unsafe { libc::madvise(self.start.as_ptr().add(offset).cast(), len, advice) };
    }

    /// Writes which type the ring carries; for the producer, once, before its first frame.
    pub fn describe(&self, type_hash: u64, type_name: &str) {
        let name = &type_name.as_bytes()[..type_name.len().min(TYPE_NAME_BYTES_MAX)];
        let page = self.start.as_ptr();
        // SAFETY: the offsets lie in the producer page, which is mapped; the caller is the producer, which alone
        // writes it, and no consumer reads before it sees the magic number, or the first frame or the first control
        // message says so.
        unsafe {
            page.add(TYPE_HASH_OFFSET).cast::<u64>().write_volatile(type_hash);
            page.add(TYPE_NAME_LENGTH_OFFSET).cast::<u32>().write_volatile(name.len() as u32);
            std::ptr::copy_nonoverlapping(name.as_ptr(), page.add(TYPE_NAME_OFFSET), name.len());
        }
        // SYNC: with the load in `Linked::description`.
        self.description_words()[0].store(MAGIC, Ordering::Release);
    }

    /// The hash and the name of the type that the ring carries, as the producer wrote them; `None` when it has
    /// not.
    pub fn description(&self) -> Option<(u64, String)> {
        let page = self.start.as_ptr();
        // SAFETY: the offsets lie in the producer page, which is mapped. Each value is read once; none is trusted:
        // the length is cut to what there is, the name is checked to be text.
        let (magic, hash, name) = unsafe {
            let length = page.add(TYPE_NAME_LENGTH_OFFSET).cast::<u32>().read_volatile() as usize;
            let name: [u8; TYPE_NAME_BYTES_MAX] =
                page.add(TYPE_NAME_OFFSET).cast::<[u8; TYPE_NAME_BYTES_MAX]>().read_volatile();
            let hash = page.add(TYPE_HASH_OFFSET).cast::<u64>().read_volatile();
            let name = String::from_utf8_lossy(&name[..length.min(TYPE_NAME_BYTES_MAX)]).into_owned();
            (page.cast::<u64>().read_volatile(), hash, name)
        };
        (magic == MAGIC).then_some((hash, name))
    }

    /// The words of the description, of which the first is the magic number.
    fn description_words(&self) -> &[AtomicU64; DESCRIPTION_BYTES / 8] {
        // SAFETY: the page is mapped, aligned, and lives as long as `self`; any bytes are valid words.
        unsafe { self.start.cast().as_ref() }
    }

    #[inline]
    fn at(&self, position: u64) -> *mut u8 {
        let offset = position as usize & (self.capacity - 1);
        // SAFETY: the offset is less than the capacity, so it lies in the first of the two mappings of the frames.
        unsafe { self.start.as_ptr().add(PAGE_BYTES + offset) }
    }
}

// SAFETY: the capacity is a power of two, checked in `map`. `at` depends on the position modulo the capacity only.
// Behind the frames the same frames are mapped again, so `capacity` bytes from any position on are contiguous.
unsafe impl Memory for Mapped {
    #[inline]
    fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn length_word(&self, position: u64) -> &AtomicU32 {
        debug_assert!(position.is_multiple_of(16));
        // SYNC: with the store in `link::Incoming`. What is not published yet may be there by half, or be sealed.
        if position >= self.arrived.load(Ordering::Acquire) {
            return &NOT_ARRIVED;
        }
        // SAFETY: a multiple of sixteen bytes into a page is aligned; the word lies in the mapping, which lives as
        // long as `self`; both sides access it atomically, and any bytes are a valid `u32`.
        unsafe { AtomicU32::from_ptr(self.at(position).cast()) }
    }

    #[inline]
    fn bytes(&self, position: u64, len: usize) -> *mut u8 {
        debug_assert!(len <= self.capacity);
        self.at(position)
    }

    #[inline]
    fn producer_words(&self) -> &ProducerWords {
        // SAFETY: the offset is aligned and inside the mapped page; atomics may be shared with another process.
        unsafe { self.start.add(PRODUCER_WORDS_OFFSET).cast().as_ref() }
    }

    #[inline]
    fn consumer_words(&self) -> &ConsumerWords {
        // SAFETY: the page is aligned and large enough; atomics may be shared with another process.
        unsafe { self.consumer.start.cast().as_ref() }
    }

    fn prepare(&self, offset: usize, len: usize) {
        self.advise(PAGE_BYTES + offset, len, libc::MADV_POPULATE_WRITE);
    }
}

impl Linked for Mapped {
    fn description(&self) -> Option<Description> {
        let mut bytes = [0; DESCRIPTION_BYTES];
        let words = self.description_words();
        // SYNC: with the store in `describe`.
        if words[0].load(Ordering::Acquire) != MAGIC {
            return None;
        }
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        Some(bytes)
    }

    fn set_description(&self, description: &Description) {
        // The first word last: it says that the others are there.
        for (word, bytes) in self.description_words().iter().zip(description.as_chunks().0).rev() {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Release);
        }
    }

    fn arrived(&self) -> &AtomicU64 {
        &self.arrived
    }
}

/// Words of 32 bits, `stride` bytes apart, in a file that others map as well.
#[derive(Debug)]
pub struct Words {
    map: Map,
    stride: usize,
    count: usize,
}

impl Words {
    /// Maps `count` words, for writing or for reading only.
    ///
    /// # Errors
    /// An error of the system calls, among them a file that is too short.
    pub fn map(file: BorrowedFd<'_>, count: usize, stride: usize, write: bool) -> io::Result<Words> {
        let bytes = (count * stride).next_multiple_of(PAGE_BYTES);
        Ok(Words { map: Map::whole(file, bytes, write)?, stride, count })
    }

    /// The word of that index.
    ///
    /// # Panics
    /// When the index is none of them.
    #[inline]
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: the word lies in the mapping, aligned (strides are multiples of four), and lives as long as it;
        // all access to it is atomic.
        unsafe { AtomicU32::from_ptr(self.map.start.as_ptr().add(index * self.stride).cast()) }
    }
}

/// By which peers wake a process, and tell it for which of its ends.
#[derive(Debug)]
pub struct Doorbell(Map);

impl Doorbell {
    /// The size of a doorbell file.
    pub const BYTES: usize = PAGE_BYTES;

    /// Maps a doorbell file.
    ///
    /// # Errors
    /// As for [`Words::map`].
    pub fn map(file: BorrowedFd<'_>) -> io::Result<Doorbell> {
        Ok(Doorbell(Map::whole(file, PAGE_BYTES, true)?))
    }

    /// The word that the process sleeps on.
    #[inline]
    pub fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped and lives as long as `self`; all access to its words is atomic.
        unsafe { AtomicU32::from_ptr(self.0.start.as_ptr().cast()) }
    }

    /// The `index`th word of 64 bits from `offset` on.
    #[inline]
    fn bits(&self, offset: usize, index: usize) -> &AtomicU64 {
        let at = offset + index * 8;
        assert!(at < PAGE_BYTES, "bits behind the doorbell page");
        // SAFETY: the word lies in the page, aligned, since the offsets are multiples of eight; otherwise as above.
        unsafe { AtomicU64::from_ptr(self.0.start.as_ptr().add(at).cast()) }
    }

    /// Wakes the process for its end in that slot, or for one without: whoever looks at the word after this sees that
    /// it changed.
    pub fn ring(&self, slot: u32) {
        if slot != 0 {
            self.mark(slot);
        }
        self.wake();
    }

    /// As [`ring`](Self::ring), by the process itself when nobody sleeps: whoever looks at the word sees that it
    /// changed.
    pub fn ring_awake(&self, slot: u32) {
        if slot != 0 {
            self.mark(slot);
        }
        self.word().fetch_add(1, Ordering::SeqCst);
    }

    fn mark(&self, slot: u32) {
        // The slot comes out of memory that the peer writes.
        let slot = slot as usize % SLOTS;
        let (word, bit) = (slot / 64, slot % 64);
        // SYNC: with `take_slots`: the word's own mark comes after the bit, and the doorbell after both.
        self.bits(SLOT_BITS_OFFSET, word).fetch_or(1 << bit, Ordering::AcqRel);
        self.bits(SLOT_SUMMARY_OFFSET, word / 64).fetch_or(1 << (word % 64), Ordering::AcqRel);
    }

    /// Wakes the process for no end of its own.
    pub fn wake(&self) {
        // SYNC: with the load before `park::park`: what was stored before is seen by who sees the new value.
        self.word().fetch_add(1, Ordering::SeqCst);
        crate::park::wake(self.word());
    }

    /// Takes the slots for which the bell was rung; for the process itself.
    pub fn take_slots(&self, mut each: impl FnMut(u32)) {
        for outer in 0..SLOTS / 64 / 64 {
            // SYNC: with `ring`.
            for word in ones(take(self.bits(SLOT_SUMMARY_OFFSET, outer))) {
                let word = outer * 64 + word;
                for bit in ones(take(self.bits(SLOT_BITS_OFFSET, word))) {
                    each((word * 64 + bit) as u32);
                }
            }
        }
    }
}

/// Takes all bits of a word; one that has none is only read, so that its line stays where it is.
fn take(bits: &AtomicU64) -> u64 {
    if bits.load(Ordering::Relaxed) == 0 { 0 } else { bits.swap(0, Ordering::AcqRel) }
}

/// The places of the bits that are set.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (place < 64).then_some(place)
    })
}

/// The counters of a process: a record for each of its ends in use.
#[derive(Debug)]
pub struct Counters(Map);

impl Counters {
    /// The size of a counters file.
    pub const BYTES: usize = SLOTS * size_of::<Record>();

    /// Maps a counters file, for writing or for reading only.
    ///
    /// # Errors
    /// As for [`Words::map`].
    pub fn map(file: BorrowedFd<'_>, write: bool) -> io::Result<Counters> {
        Ok(Counters(Map::whole(file, Self::BYTES, write)?))
    }

    /// The records that are in use.
    pub fn read(&self) -> impl Iterator<Item = crate::counters::Counted> {
        (0..SLOTS as u32).filter_map(|slot| self.record(slot).read())
    }

    /// The record of the end in that slot.
    ///
    /// # Panics
    /// When there is no such slot.
    #[inline]
    pub fn record(&self, slot: u32) -> &Record {
        assert!((slot as usize) < SLOTS, "slot {slot} of {SLOTS}");
        // SAFETY: the record lies in the mapping, aligned; it consists of atomics only, which may be shared.
        unsafe { self.0.start.cast::<Record>().add(slot as usize).as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::layout::{RECORD_NAME_BYTES, RECORD_RECEIVER};

    #[test]
    fn frames_are_mapped_twice_in_a_row() {
        let files = Files::create(RING_BYTES_MIN).unwrap();
        let ring = Mapped::for_producer(files.data.as_fd(), files.consumer.as_fd(), RING_BYTES_MIN).unwrap();
        let last = ring.bytes(RING_BYTES_MIN as u64 - 1, 2);
        // SAFETY: two contiguous bytes, by the contract under test.
        unsafe {
            last.write(7);
            last.add(1).write(9);
            assert_eq!(ring.bytes(0, 1).read(), 9);
        }
    }

    #[test]
    fn a_reader_can_not_become_a_writer() {
        let files = Files::create(RING_BYTES_MIN).unwrap();
        let reader = reopen_read_only(files.data.as_fd()).unwrap();
        let refused =
            Mapped::for_producer(reader.as_fd(), files.consumer.as_fd(), RING_BYTES_MIN).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        // SAFETY: a plain system call on an owned descriptor.
        let resized = unsafe { libc::ftruncate(files.data.as_raw_fd(), 0) };
        assert_eq!(resized, -1, "a ring's file must not shrink");
    }

    #[test]
    fn a_short_file_is_refused() {
        let file = create(c"short", PAGE_BYTES).unwrap();
        let error = Mapped::for_consumer(file.as_fd(), file.as_fd(), RING_BYTES_MIN).unwrap_err();
        assert!(error.to_string().contains("8192 are needed"), "{error}");
    }

    #[test]
    fn the_type_is_told_to_the_reader() {
        let files = Files::create(RING_BYTES_MIN).unwrap();
        let writer =
            Mapped::for_producer(files.data.as_fd(), files.consumer.as_fd(), RING_BYTES_MIN).unwrap();
        let reader =
            Mapped::for_consumer(files.data.as_fd(), files.consumer.as_fd(), RING_BYTES_MIN).unwrap();
        assert_eq!(reader.description(), None);
        writer.describe(5, "a::B");
        assert_eq!(reader.description(), Some((5, "a::B".to_owned())));
    }

    fn doorbell() -> Doorbell {
        Doorbell::map(create(c"doorbell", Doorbell::BYTES).unwrap().as_fd()).unwrap()
    }

    fn taken(bell: &Doorbell) -> Vec<u32> {
        let mut slots = Vec::new();
        bell.take_slots(|slot| slots.push(slot));
        slots
    }

    #[test]
    fn each_slot_that_was_rung_is_taken_once() {
        let bell = doorbell();
        assert_eq!(taken(&bell), []);
        let last = SLOTS as u32 - 1;
        let slots = [0, 1, 63, 64, 4095, 4096, 8191, last];
        for slot in slots.into_iter().rev().chain([64, 0]) {
            let before = bell.word().load(Ordering::SeqCst);
            bell.ring(slot);
            assert_ne!(bell.word().load(Ordering::SeqCst), before, "who is about to sleep would not see it");
        }
        // For an end without a slot the process looks by itself.
        assert_eq!(taken(&bell), slots[1..]);
        assert_eq!(taken(&bell), []);
        (0..SLOTS as u32).for_each(|slot| bell.ring(slot));
        assert!(taken(&bell).into_iter().eq(1..SLOTS as u32));
    }

    #[test]
    fn a_slot_that_there_is_not_is_one_that_there_is() {
        let bell = doorbell();
        for (slot, rung) in [(SLOTS as u32, 0), (SLOTS as u32 + 5, 5), (u32::MAX, SLOTS as u32 - 1)] {
            bell.ring(slot);
            assert_eq!(taken(&bell), [rung]);
        }
    }

    #[test]
    fn a_wake_is_for_no_slot() {
        let bell = doorbell();
        bell.wake();
        assert_eq!(bell.word().load(Ordering::SeqCst), 1);
        assert_eq!(taken(&bell), []);
    }

    /// One thread rings and waits for an answer, the other looks all the time: whoever began to look after the ring has
    /// to find it, and once.
    #[test]
    fn no_ring_is_lost() {
        const RINGS: usize = 200_000;
        // Neighbours in one word of bits, in one word of words, and far away.
        const RUNG: [u32; 5] = [3, 4, 70, 4000, SLOTS as u32 - 1];
        let bell = doorbell();
        let (found, looks) = (RUNG.map(|_| AtomicU64::new(0)), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let ringer = scope.spawn(|| {
                for ring in 0..RINGS {
                    let (found, rung) = (&found[ring % RUNG.len()], RUNG[ring % RUNG.len()]);
                    let before = found.load(Ordering::SeqCst);
                    bell.ring(rung);
                    // The look that goes on just now may miss it, the one after that may not.
                    let missed = looks.load(Ordering::SeqCst) + 2;
                    loop {
                        let is_missed = looks.load(Ordering::SeqCst) >= missed;
                        if found.load(Ordering::SeqCst) > before {
                            break;
                        }
                        assert!(!is_missed, "ring {ring}, for slot {rung}, was lost");
                        std::thread::yield_now();
                    }
                }
            });
            while !ringer.is_finished() {
                bell.take_slots(|slot| {
                    let place = RUNG.iter().position(|rung| *rung == slot).expect("a slot that nobody rang");
                    found[place].fetch_add(1, Ordering::SeqCst);
                });
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!(found.map(AtomicU64::into_inner), [(RINGS / RUNG.len()) as u64; RUNG.len()]);
    }

    #[test]
    fn records_are_read_by_others_and_written_by_one() {
        let file = create(c"counters", Counters::BYTES).unwrap();
        let own = Counters::map(file.as_fd(), true).unwrap();
        let others = reopen_read_only(file.as_fd()).unwrap();
        assert_eq!(Counters::map(others.as_fd(), true).unwrap_err().raw_os_error(), Some(libc::EACCES));
        let others = Counters::map(others.as_fd(), false).unwrap();
        let slots = [1, 2, SLOTS as u32 - 1];
        for slot in slots {
            own.record(slot).frames.store(u64::from(slot) + 7, Ordering::Relaxed);
            own.record(slot).name[RECORD_NAME_BYTES / 8 - 1].store(slot.into(), Ordering::Relaxed);
            own.record(slot).kind.store(RECORD_RECEIVER, Ordering::Release);
        }
        for slot in slots {
            let record = others.record(slot);
            assert_eq!(record.kind.load(Ordering::Acquire), RECORD_RECEIVER);
            assert_eq!(record.frames.load(Ordering::Relaxed), u64::from(slot) + 7);
            assert_eq!(record.name[RECORD_NAME_BYTES / 8 - 1].load(Ordering::Relaxed), slot.into());
            assert_eq!(record.bytes.load(Ordering::Relaxed), 0, "records overlap");
        }
        assert_eq!(others.record(3).kind.load(Ordering::Acquire), 0, "a record that is not used");
    }

    #[test]
    #[should_panic(expected = "slot 16384 of 16384")]
    fn there_is_no_record_behind_the_last() {
        let file = create(c"counters", Counters::BYTES).unwrap();
        let _none = Counters::map(file.as_fd(), false).unwrap().record(SLOTS as u32);
    }
}
