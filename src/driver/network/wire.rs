//! Netlink messages as bytes, in both directions (`linux/netlink.h`, `linux/if_link.h`,
//! `linux/nfnetlink.h`).
//!
//! Only the attributes that are asked for are looked at, so a kernel that sends new ones, or
//! old ones in a new size, breaks nothing.

/// Attributes of links (`linux/if_link.h`).
pub(super) mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const LINK: u16 = 5;
    pub const QDISC: u16 = 6;
    pub const MASTER: u16 = 10;
    pub const OPERSTATE: u16 = 16;
    pub const LINKINFO: u16 = 18;
    pub const IFALIAS: u16 = 20;
    pub const NET_NS_FD: u16 = 28;
    pub const EXT_MASK: u16 = 29;
    /// Inside `LINKINFO`.
    pub const INFO_KIND: u16 = 1;
    /// Inside `LINKINFO`.
    pub const INFO_DATA: u16 = 2;
    /// Inside `LINKINFO`, what the link is as a part of its master.
    pub const INFO_PORT_DATA: u16 = 5;
    /// Inside a bridge port's `INFO_PORT_DATA`.
    pub const PORT_STATE: u16 = 1;
    /// A `PORT_STATE`.
    pub const PORT_FORWARDING: u8 = 3;
    /// An `OPERSTATE`.
    pub const OPER_UP: u8 = 6;
    /// Inside a bridge's `INFO_DATA`.
    pub const BR_FORWARD_DELAY: u16 = 1;
    /// Inside a bridge's `INFO_DATA`.
    pub const BR_STP_STATE: u16 = 5;
    /// Inside a veth's `INFO_DATA`.
    pub const VETH_PEER: u16 = 1;
    /// A bit of `EXT_MASK`: leave the counters out of a dump.
    pub const FILTER_SKIP_STATS: u32 = 1 << 3;
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_FLAGS: u16 = 0xc000;
/// Says that an attribute holds attributes.
const NESTED: u16 = 0x8000;

/// A message that is being written.
#[derive(Debug, Clone)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of type `kind` that starts with the family's own fixed `header`.
    pub fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&u16::try_from(flags).unwrap_or(0).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Message { bytes }.fixed(header)
    }

    /// A fixed structure, padded.
    pub fn fixed(mut self, header: &[u8]) -> Self {
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// An attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // A value that is too long for the field is refused by the kernel, which sees a length
        // that does not fit the message.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// A string attribute, ended by a zero byte.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A 32-bit attribute in the machine's byte order.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// An attribute that holds what `fill` writes.
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Self {
        let inner = fill(Message { bytes: Vec::new() });
        self = self.attribute(kind | NESTED, &inner.bytes);
        self
    }

    /// The bytes to send, with the length and the sequence number filled in.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.splice(0..4, length.to_ne_bytes());
        self.bytes.splice(8..12, sequence.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    /// Its type.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request that it answers.
    pub sequence: u32,
    /// All behind the header.
    pub body: &'a [u8],
}

/// The messages of one datagram. A malformed rest is left out.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let message = Received {
            kind: short(bytes, 4)?,
            flags: short(bytes, 6)?,
            sequence: number(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes of a message or of a nested attribute. A malformed rest is left out.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0)?);
        let kind = short(bytes, 2)? & !ATTRIBUTE_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The 16-bit number at `offset`.
pub(super) fn short(bytes: &[u8], offset: usize) -> Option<u16> {
    let raw = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_ne_bytes(raw.try_into().ok()?))
}

/// The 32-bit number at `offset`.
pub(super) fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    let raw = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(raw.try_into().ok()?))
}

/// A string attribute's text, up to its zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes)).into_owned()
}
