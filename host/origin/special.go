package origin

import "net/netip"

// addressKind says who can reach an address.
type addressKind string

// The kinds. Loopback and private addresses can be reached only by some hosts, and may
// lead to what others must not see. There are no images at special addresses.
const (
	kindPublic   addressKind = "public"
	kindLoopback addressKind = "loopback"
	kindPrivate  addressKind = "private"
	kindSpecial  addressKind = "special"
)

// kinds has the networks of RFC 6890 and of its registries (IANA, IPv4 and IPv6
// Special-Purpose Address Space) that not everybody can reach. The first network that
// contains an address decides its kind.
var kinds = []struct {
	network netip.Prefix
	kind    addressKind
}{
	// At these addresses clouds give a machine its credentials. By their networks
	// they would be private or public.
	{netip.MustParsePrefix("100.100.100.200/32"), kindSpecial}, // Alibaba Cloud
	{netip.MustParsePrefix("168.63.129.16/32"), kindSpecial},   // Azure
	{netip.MustParsePrefix("fd00:ec2::/32"), kindSpecial},      // AWS
	{netip.MustParsePrefix("fd20:ce::254/128"), kindSpecial},   // Google Cloud

	{netip.MustParsePrefix("127.0.0.0/8"), kindLoopback},
	{netip.MustParsePrefix("10.0.0.0/8"), kindPrivate},
	{netip.MustParsePrefix("100.64.0.0/10"), kindPrivate}, // behind the NAT of a provider
	{netip.MustParsePrefix("172.16.0.0/12"), kindPrivate},
	{netip.MustParsePrefix("192.168.0.0/16"), kindPrivate},
	{netip.MustParsePrefix("0.0.0.0/8"), kindSpecial},       // this host
	{netip.MustParsePrefix("169.254.0.0/16"), kindSpecial},  // link-local: metadata of clouds
	{netip.MustParsePrefix("192.0.0.0/24"), kindSpecial},    // protocol assignments
	{netip.MustParsePrefix("192.0.2.0/24"), kindSpecial},    // documentation
	{netip.MustParsePrefix("192.88.99.0/24"), kindSpecial},  // relays of 6to4
	{netip.MustParsePrefix("198.18.0.0/15"), kindSpecial},   // benchmarks
	{netip.MustParsePrefix("198.51.100.0/24"), kindSpecial}, // documentation
	{netip.MustParsePrefix("203.0.113.0/24"), kindSpecial},  // documentation
	{netip.MustParsePrefix("224.0.0.0/3"), kindSpecial},     // multicast, reserved, broadcast
	{netip.MustParsePrefix("0.0.0.0/0"), kindPublic},

	{netip.MustParsePrefix("::1/128"), kindLoopback},
	{netip.MustParsePrefix("fc00::/7"), kindPrivate},
	{netip.MustParsePrefix("2001::/23"), kindSpecial},     // protocol assignments, Teredo among them
	{netip.MustParsePrefix("2001:db8::/32"), kindSpecial}, // documentation
	{netip.MustParsePrefix("2002::/16"), kindSpecial},     // 6to4: contains an IPv4 address
	{netip.MustParsePrefix("3fff::/20"), kindSpecial},     // documentation
	{netip.MustParsePrefix("2000::/3"), kindPublic},       // all public addresses
	{netip.MustParsePrefix("::/0"), kindSpecial},          // link-local, multicast, embedded IPv4, ...
}

// nat64 is the network of the addresses by which hosts without IPv4 reach IPv4 hosts
// (RFC 6052). The IPv4 address is in the last four bytes.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// plain returns the IPv4 address that an address stands for, or the address itself,
// without a zone.
func plain(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}

// kindOf returns the kind of an address.
func kindOf(addr netip.Addr) addressKind {
	addr = plain(addr)
	for _, k := range kinds {
		if k.network.Contains(addr) {
			return k.kind
		}
	}
	return kindSpecial // not an address
}
