//! The XDP frame as bounded bytes. With `maps.rs` and `report.rs` the only file with `unsafe`.

use core::{arch::asm, ffi::c_void, marker::PhantomData, mem::MaybeUninit, ptr};

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_loop, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use filter_common::{
    Head, LinkHeader, MAX_OFFSET, MAX_STEPS, PacketBytes, Step, Walk, wire::ethernet,
};

/// An XDP frame. `IP_OFFSET` is the offset of the IP header in an untagged frame: after an Ethernet
/// header, or zero.
pub(crate) struct Frame<'a, const IP_OFFSET: usize> {
    ctx: &'a XdpContext,
}

/// `IP_OFFSET` of devices whose frames start with an Ethernet header.
pub(crate) const IP_AFTER_ETHERNET: usize = LinkHeader::Ethernet.header_len();
/// `IP_OFFSET` of devices whose frames start with the IP header.
pub(crate) const IP_AT_START: usize = LinkHeader::None.header_len();

impl<'a, const IP_OFFSET: usize> Frame<'a, IP_OFFSET> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Length of the whole frame in bytes, the parts beyond the linear one included.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the context is the one the kernel called us with; the helper only reads it.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    /// Length of the frame, without a helper call if the IP packet ends in the linear part, at
    /// `end`.
    ///
    /// Bytes beyond the linear part are then padding. Only a frame padded beyond a whole buffer has
    /// any, and they are not counted.
    #[inline(always)]
    pub(crate) fn len_with_end(&self, end: usize) -> usize {
        let linear = self.ctx.data_end() - self.ctx.data();
        if end <= linear { linear } else { self.len() }
    }
}

/// The first `N` bytes of a frame from `IP_OFFSET`, all in the linear part.
///
/// Words in them lie at any address. The compiler splits such a load into one for each byte. The
/// kernel allows whole loads where the machine does, on x86-64 and arm64
/// (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`), so these are written in assembly.
pub(crate) struct FrameHead<'a, const IP_OFFSET: usize, const N: usize> {
    start: *const u8,
    frame: PhantomData<&'a XdpContext>,
}

macro_rules! load {
    ($start:expr, $at:expr, $instructions:literal) => {{
        let word: u64;
        // SAFETY: the bytes are in the linear part (see `Frame::head`; the verifier checks it
        // again). Only this program accesses the frame while it runs. Nothing but `word` is
        // written.
        unsafe {
            asm!(
                $instructions,
                word = out(reg) word,
                start = in(reg) $start,
                at = const $at,
                options(pure, readonly, nostack),
            );
        }
        word
    }};
}

impl<const IP_OFFSET: usize, const N: usize> Head<N> for FrameHead<'_, IP_OFFSET, N> {
    #[inline(always)]
    fn ether_type(&self) -> u16 {
        if IP_OFFSET == IP_AT_START {
            ethernet::type_of_version(self.u8::<0>() >> 4)
        } else {
            u16::from_be(load!(
                self.start,
                ethernet::TYPE,
                "{word} = *(u16 *)({start} + {at})"
            ) as u16)
        }
    }

    #[inline(always)]
    fn u8<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N, "beyond the bytes at hand") };
        load!(
            self.start,
            IP_OFFSET + AT,
            "{word} = *(u8 *)({start} + {at})"
        ) as u8
    }

    #[inline(always)]
    fn u16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N, "beyond the bytes at hand") };
        u16::from_be(load!(
            self.start,
            IP_OFFSET + AT,
            "{word} = *(u16 *)({start} + {at})"
        ) as u16)
    }

    #[inline(always)]
    fn u32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N, "beyond the bytes at hand") };
        // The swap is in the assembly to hide the 32-bit range from the compiler. The verifier of
        // Linux 6.1 does not know the range of a number with swapped bytes (6.18 does), while the
        // compiler would know it and omit the bounds that the verifier needs.
        load!(
            self.start,
            IP_OFFSET + AT,
            "{word} = *(u32 *)({start} + {at})
            {word} = be32 {word}"
        ) as u32
    }

    #[inline(always)]
    fn u64<const AT: usize>(&self) -> u64 {
        const { assert!(AT + 8 <= N, "beyond the bytes at hand") };
        u64::from_be(load!(
            self.start,
            IP_OFFSET + AT,
            "{word} = *(u64 *)({start} + {at})"
        ))
    }
}

impl<'a, const IP_OFFSET: usize> PacketBytes for Frame<'a, IP_OFFSET> {
    type Head<const N: usize> = FrameHead<'a, IP_OFFSET, N>;

    #[inline(always)]
    fn link_header(&self) -> LinkHeader {
        if IP_OFFSET == IP_AT_START {
            LinkHeader::None
        } else {
            LinkHeader::Ethernet
        }
    }

    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<FrameHead<'a, IP_OFFSET, N>> {
        let start = self.ctx.data();
        (start + IP_OFFSET + N <= self.ctx.data_end()).then_some(FrameHead {
            start: start as *const u8,
            frame: PhantomData,
        })
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.ctx.data() + offset;
        // The verifier bounds the end of the read, so the helper reads the last bytes before
        // `MAX_OFFSET`.
        if offset <= MAX_OFFSET - N && start + N <= self.ctx.data_end() {
            // SAFETY: `start..start + N` lies in the linear part by the check above, which the
            // verifier repeats. Only this program accesses the frame while it runs. The read needs
            // no alignment.
            return Some(unsafe { ptr::read_unaligned(start as *const [u8; N]) });
        }
        // The bytes are beyond the linear part, cross its end, or do not exist: the helper knows.
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the context is the kernel's. The buffer is ours and `N` bytes long. Any byte is a
        // valid `u8`.
        let error = unsafe {
            bpf_xdp_load_bytes(
                self.ctx.ctx,
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        // SAFETY: the helper filled all `N` bytes if it returned zero.
        (error == 0).then(|| unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn copy(&self, offset: usize, into: &mut [u8]) -> bool {
        // SAFETY: the context is the kernel's. The buffer is the caller's, with the length passed.
        let error = unsafe {
            bpf_xdp_load_bytes(
                self.ctx.ctx,
                offset as u32,
                into.as_mut_ptr().cast(),
                into.len() as u32,
            )
        };
        error == 0
    }

    #[inline(always)]
    fn walk<W: Walk>(&self, offset: usize, walk: &mut W) -> usize {
        let mut state = LoopState {
            ctx: self.ctx.as_ptr(),
            walk: ptr::from_mut(walk),
            unused: MaybeUninit::uninit(),
            offset: offset as u32,
        };
        // SAFETY: `loop_body::<IP_OFFSET, W>` has the signature that the helper calls, and `state`
        // outlives the call.
        unsafe {
            bpf_loop(
                MAX_STEPS,
                loop_body::<IP_OFFSET, W> as *mut c_void,
                ptr::from_mut(&mut state).cast(),
                0,
            );
        }
        state.offset as usize
    }

    #[inline(always)]
    fn forget(&self, word: &mut u32) {
        // A volatile read is made of memory, where the compiler would go on with a register.
        // SAFETY: `word` is a live, aligned number, and no other reference to it exists.
        *word = unsafe { ptr::read_volatile(word) };
    }
}

/// State of the loop body. The verifier follows both pointers through the stack.
#[repr(C)]
struct LoopState<W> {
    ctx: *mut c_void,
    walk: *mut W,
    unused: MaybeUninit<u32>,
    /// Offset in the frame, in the upper half of a stack slot, where the verifier does not track a
    /// number. It repeats the loop until a round changes nothing it knows (Linux 6.8, commit
    /// ab5cfac139ab8576fb54630d4cca23c3e690ee90). With a tracked offset it would follow the range
    /// from round to round and give up before the range stops growing.
    offset: u32,
}

const _: () = assert!(core::mem::offset_of!(LoopState<()>, offset) % 8 == 4);

/// One round of `bpf_loop` (Linux 5.17, commit e6f2dd0f80674e9d5960337b3e9c2a242441b326): 0
/// continues, 1 stops.
unsafe extern "C" fn loop_body<const IP_OFFSET: usize, W: Walk>(
    _round: u64,
    state: *mut LoopState<W>,
) -> i64 {
    // SAFETY: `state` is the one that `walk` above passed to the helper. No other reference to it
    // exists.
    let state = unsafe { &mut *state };
    let ctx = XdpContext::new(state.ctx.cast());
    let offset = state.offset as usize;
    // SAFETY: as above; `walk` is borrowed mutably for the whole loop.
    let (stop, advance) =
        match unsafe { &mut *state.walk }.step(&Frame::<IP_OFFSET>::new(&ctx), offset) {
            Step::More(len) => (0, len),
            Step::Done(len) => (1, len),
        };
    state.offset = (offset + advance) as u32;
    stop
}
