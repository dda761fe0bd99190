package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
)

// maxSocketPath is the longest path that the kernel takes for a unix socket:
// 108 bytes with the zero at the end.
const maxSocketPath = 107

func (d *decoder) checkListener(l Listener, at positions) {
	switch l.Network {
	case TCP:
		d.checkAddress(l, at)
		if l.Serves(FaceAdmin) && l.TokenFile == "" {
			d.errorAt(at.of("serve"), "Admin without a token",
				"Whoever reaches this address could empty the cache. Set token_file, or serve admin on a unix socket.")
		}
		if l.Serves(FacePeers) && l.TokenFile == "" {
			d.errorAt(at.of("serve"), "Peers without a token", "Other nodes prove who they are with a token. Set token_file.")
		}
		if l.Serves(FacePeers) && l.Serves(FaceAdmin) {
			d.errorAt(at.of("serve"), "Peers may administer",
				"The tokens of a listener open everything that it serves, so other nodes could empty the cache. Serve admin on another listener.")
		}
		d.checkSecrets(l, at)
	case Unix:
		d.checkSocketPath(l.Path, at)
	}
}

// checkSecrets complains about the files that say who may use a listener, as far
// as they can be read here.
func (d *decoder) checkSecrets(l Listener, at positions) {
	if l.AuthFile != "" && !l.Serves(FaceImages) {
		d.errorAt(at.of("auth_file"), "Nothing to ask for", `An auth_file is for "images", which this listener does not serve; "admin" and "peers" have token_file.`)
	}
	if l.AuthFile != "" && l.AuthFile == l.TokenFile {
		d.errorAt(at.of("auth_file"), "One file for two", "Who may have images could empty the cache, or be another node. Write another file.")
	}
	if _, err := l.Tokens(); err != nil && !cannotRead(err) {
		d.errorAt(at.of("token_file"), "Bad file of tokens", "%s", at.sentence(err, "token_file"))
	}
	if _, err := l.Credentials(); err != nil && !cannotRead(err) {
		d.errorAt(at.of("auth_file"), "Bad file of credentials", "%s", at.sentence(err, "auth_file"))
	}
}

func (d *decoder) checkAddress(l Listener, at positions) {
	if l.Address == "" {
		return // reported as missing
	}
	_, port, err := net.SplitHostPort(l.Address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		d.errorAt(at.of("address"), "Bad value of address",
			`%s is not an address to listen on; write host:port, such as "127.0.0.1:9292" or "[::1]:9292".`, at.shown("address", l.Address))
		return
	}
	if port != "0" { // 0 takes any free port
		d.claim("address "+l.Address, at.of("address"), "Address in use twice", "Another listener has the address %s.", at.shownBare("address", l.Address))
	}
}

func (d *decoder) checkSocketPath(path string, at positions) {
	if path == "" {
		return // reported as missing
	}
	here, shown := at.of("path"), at.shownBare("path", path)
	if len(path) > maxSocketPath {
		d.errorAt(here, "Path of a socket too long", "The kernel takes at most %d bytes; %s has %d.", maxSocketPath, shown, len(path))
	}
	d.claim("socket "+path, here, "Socket in use twice", "Another listener has the socket %s.", shown)
}

// claim complains when another block already has what only one can have.
func (d *decoder) claim(key string, at hcl.Range, summary, detail string, args ...any) {
	if first, ok := d.claims[key]; ok {
		d.errorAt(at, summary, "%s It is at %s.", fmt.Sprintf(detail, args...), where(first))
		return
	}
	d.claims[key] = at
}

func (d *decoder) checkCache(c Cache, at positions) {
	if len(c.Shadow) > maxShadows {
		d.errorAt(at.of("shadow"), "Too many candidates", "Each candidate is a process of its own; at most %d can be tried at once.", maxShadows)
	}
	if c.Prune.LowWatermark > c.Prune.HighWatermark {
		d.errorAt(at.of("prune.low_watermark"), "Watermarks the wrong way round",
			"Pruning begins above high_watermark (%s) and ends at low_watermark (%s), so low_watermark must not be the larger one.",
			at.shownBare("prune.high_watermark", fmt.Sprint(c.Prune.HighWatermark)), at.shownBare("prune.low_watermark", fmt.Sprint(c.Prune.LowWatermark)))
	}
	if c.Limit == options.LimitHard && c.MaxImageSize > c.MaxSize {
		d.warnAt(at.of("max_image_size"), "Limit without effect",
			"An image larger than max_size (%s) is never stored, so a max_image_size above it changes nothing.", at.shownBare("max_size", FormatSize(c.MaxSize)))
	}
}

// maxShadows keeps candidates from taking all of a small machine.
const maxShadows = 8

// prefixPattern is a URL path that begins and ends with a slash.
var prefixPattern = regexp.MustCompile(`^/([A-Za-z0-9._~-]+/)+$`)

// reservedPaths belong to the service itself, now or later.
var reservedPaths = []string{"/v1/", "/v2/", "/metrics/", "/healthz/", "/readyz/", "/debug/"}

func (d *decoder) checkOrigin(o *Origin, at positions) {
	d.checkPrefix(o, at)
	if o.Type == OriginHTTP && o.Endpoint != "" {
		d.checkEndpoint(o, at)
	}
	if o.Type == OriginS3 {
		d.checkS3(o, at)
	}
	d.checkChecksums(o.Checksums, at)
	d.checkRedirects(o, at)
	for name := range o.Headers {
		if !headerPattern.MatchString(name) || strings.ContainsAny(o.Headers[name], "\r\n\x00") {
			d.errorAt(at.of("headers"), "Bad value of headers", "%s is not a valid header name, or its value has more than one line.", at.shown("headers", name))
		}
	}
	for _, t := range o.Expect.ContentTypes {
		if !typePattern.MatchString(t) {
			d.errorAt(at.of("expect.content_types"), "Bad value of content_types", `%s is not a type such as "application/octet-stream" or "application/*".`, at.shown("expect.content_types", t))
		}
	}
	if o.Revalidate == "behind" && o.OnOriginDown == "fail" {
		d.warnAt(at.of("revalidate"), "Served before it is confirmed",
			`With revalidate = "behind" the first due hit is answered before the origin is asked, although with on_origin_down = "fail" each image must be confirmed.`)
	}
}

// checkRedirects complains about destinations that are none, or of no use.
func (d *decoder) checkRedirects(o *Origin, at positions) {
	if len(o.RedirectTo) == 0 {
		return
	}
	if _, err := origin.ParseDestinations(o.RedirectTo); err != nil {
		d.errorAt(at.of("redirect_to"), "Bad value of redirect_to", "%s", at.sentence(err, "redirect_to"))
	}
	if !o.AllowRedirects {
		d.errorAt(at.of("redirect_to"), "Redirects are not allowed", "Redirects to other hosts are not followed at all without allow_redirects = true.")
	}
}

// typePattern is the grammar of media types without parameters (RFC 9110,
// section 8.3.1), the second half of which may be any.
var typePattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// headerPattern is the grammar of header names (RFC 9110, token).
var headerPattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (d *decoder) checkPrefix(o *Origin, at positions) {
	if !strings.HasSuffix(o.Prefix, "/") {
		o.Prefix += "/"
	}
	here := at.of("prefix")
	if !prefixPattern.MatchString(o.Prefix) || strings.Contains(o.Prefix, "/../") || strings.Contains(o.Prefix, "/./") {
		d.errorAt(here, "Bad value of prefix", `%s is not a path such as "/images/" or "/mirror/ubuntu/".`, at.shown("prefix", o.Prefix))
		return
	}
	for _, taken := range reservedPaths {
		if strings.HasPrefix(o.Prefix, taken) {
			d.errorAt(here, "Bad value of prefix", "Paths below %s belong to the service itself. Choose another one.", taken)
		}
	}
	for _, other := range d.prefixes {
		if strings.HasPrefix(o.Prefix, other.prefix) || strings.HasPrefix(other.prefix, o.Prefix) {
			d.errorAt(here, "Origins with the same paths",
				"This origin answers %s, and the one at %s answers %s. No prefix may begin with that of another origin.",
				at.shownBare("prefix", o.Prefix), where(other.at.of("prefix")), other.at.shownBare("prefix", other.prefix))
			break
		}
	}
	d.prefixes = append(d.prefixes, claimedPrefix{o.Prefix, at})
}

func (d *decoder) checkEndpoint(o *Origin, at positions) {
	u, err := url.Parse(o.Endpoint)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		d.errorAt(at.of("endpoint"), "Bad value of endpoint", `%s is not a URL such as "https://mirror.example/images/".`, at.shown("endpoint", o.Endpoint))
	case u.RawQuery != "" || u.Fragment != "":
		d.errorAt(at.of("endpoint"), "Bad value of endpoint",
			"The names of images are appended to the endpoint, so it cannot contain ? or #.")
	case u.User != nil:
		d.errorAt(at.of("endpoint"), "Bad value of endpoint",
			"A password in a URL ends up in logs. Use headers, with the value read by file().")
	case !strings.HasSuffix(o.Endpoint, "/"):
		o.Endpoint += "/"
	}
}

func (d *decoder) checkPin(p Pin, at positions) {
	if !p.Until.IsZero() && p.Until.Before(time.Now()) {
		d.warnAt(at.of("until"), "Pin without effect", "The pin ended at %s. Remove the block, or set a later time.", at.shownBare("until", p.Until.Format(time.RFC3339)))
	}
}

func (d *decoder) checkSchedule(s Schedule, at positions) {
	_, cron := at.args["cron"]
	_, every := at.args["every"]
	switch {
	case cron && every:
		d.errorAt(at.of("every"), "Two times in one schedule", "A schedule has either cron or every, not both. Write two schedules.")
	case !cron && !every:
		d.errorAt(at.header, "Missing option", `Say when it runs: cron = "30 2 * * *" is half past two each night, every = "5m" is five minutes after the end of the last run.`)
	case every && s.Every > 0 && s.Jitter >= s.Every:
		d.errorAt(at.of("jitter"), "Jitter too long", "It must be shorter than every, which is %s.", at.shown("every", FormatDuration(s.Every)))
	}
	if len(s.Images) > 0 && len(s.Run) > 0 && !slices.Contains(s.Run, TaskPrefetch) {
		d.errorAt(at.of("images"), "Images without prefetch", `Images are queued by "prefetch", which is not in run.`)
	}
}

// checkWanted complains about listed images that no origin can have: with several
// origins each begins with the name or the prefix of one.
func (d *decoder) checkWanted(c *Config) {
	if len(c.Origins) < 2 {
		return
	}
	for _, w := range d.wanted {
		for _, id := range w.ids {
			if !slices.ContainsFunc(c.Origins, func(o Origin) bool { return o.mayHave(id) }) {
				d.warnAt(w.at.of("images"), "No origin has this image",
					"With several origins an image is called ORIGIN/NAME, or by the path on which it is served, and %s begins with neither the name nor the prefix of an origin.", w.at.shown("images", id))
			}
		}
	}
}

// mayHave reports whether an image, as a person calls it, is one of the origin
// where there are others too.
func (o Origin) mayHave(image string) bool {
	return strings.HasPrefix(image, o.Prefix) || strings.HasPrefix("/"+image, o.Prefix) ||
		strings.HasPrefix(image, o.Name+"/") || strings.HasPrefix(image, o.Name+".")
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (d *decoder) checkPlugin(p *Plugin, at positions) {
	p.SHA256 = strings.ToLower(p.SHA256)
	if p.SHA256 != "" && !sha256Pattern.MatchString(p.SHA256) {
		d.errorAt(at.of("sha256"), "Bad value of sha256", "A SHA-256 sum has 64 hexadecimal digits, as sha256sum prints them.")
	}
	if p.Command != "" && p.Wasm != "" {
		d.errorAt(at.of("wasm"), "Two plugins in one block", "A plugin is either a command or a wasm module, not both.")
	}
	if p.Command == "" && len(p.Args) > 0 {
		d.errorAt(at.of("args"), "Arguments without a command", "The option args is for a command, and there is none here.")
	}
	if p.Command != "" && len(p.Grants) > 0 {
		d.errorAt(at.of("grant"), "Grants for a program", "Grants are for modules alone; a program has the clock and random numbers anyway.")
	}
	for name := range p.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			d.errorAt(at.of("env"), "Bad value of env", "%s is not the name of an environment variable.", at.shown("env", name))
		}
	}
}

// complete adds what follows from the blocks as a whole, and checks it.
func (d *decoder) complete(c *Config) {
	d.need("listener", "Say where clients are served, for instance:", `listener "tcp" "public" {`, `  address = "127.0.0.1:9292"`, "}")
	d.need("cache", "Say where images are kept, for instance:", `cache "default" {`, `  dir = "/var/lib/imgcache/images"`, "}")
	d.need("origin", "Say where images come from, for instance:", `origin "directory" "golden" {`, `  path = "/srv/images"`, "}")
	d.checkKinds(c)
	d.checkShadows(c)
	d.checkPaths(c)
	d.checkWanted(c)
	d.checkScrubbed(c)
	d.checkPeers(c)
	d.checkOpen(c)
	d.addAdminSocket(c)
}

// need complains when there is no block of a type, unless a block of an
// unknown type may be meant for it.
func (d *decoder) need(kind string, advice ...string) {
	if !d.strangers && !d.has(kind) {
		d.errorAt(hcl.Range{}, "No "+kind, "%s", strings.Join(advice, "\n"))
	}
}

// has reports whether there is a block of that type, right or wrong.
func (d *decoder) has(kind string) bool {
	for key := range d.seen {
		if key == kind || strings.HasPrefix(key, kind+" ") {
			return true
		}
	}
	return false
}

// checkKinds complains when a driver block uses a policy, or the reverse.
func (d *decoder) checkKinds(c *Config) {
	for _, use := range d.configs {
		for _, p := range c.Plugins {
			if p.Name == use.Plugin && p.Kind != "" && p.Kind != use.Kind {
				d.errorAt(use.label, "Plugin of the wrong kind", "The plugin %q is a %s, not a %s.", p.Name, p.Kind, use.Kind)
			}
		}
	}
}

// checkShadows complains about a policy that is compared with itself.
func (d *decoder) checkShadows(c *Config) {
	names := []string{c.Cache.Policy.Name}
	for _, p := range c.Cache.Shadow {
		if p.Name != "" && slices.Contains(names, p.Name) {
			d.errorAt(d.cacheAt.of("shadow"), "Policy twice", "The policy %q is listed twice, or is the active policy, which is always compared.", p.Name)
		}
		names = append(names, p.Name)
	}
}

// checkPaths complains about an origin inside the cache, which would be pruned,
// and about a trace there.
func (d *decoder) checkPaths(c *Config) {
	for _, o := range c.Origins {
		if o.Path == "" || c.Cache.Dir == "" {
			continue
		}
		if o.Path == c.Cache.Dir || strings.HasPrefix(o.Path, c.Cache.Dir+"/") {
			d.errorAt(d.origins[o.Name].of("path"), "Origin inside the cache",
				"The cache removes files below %s, so the originals must not lie there.", d.cacheAt.shownBare("dir", c.Cache.Dir))
		}
	}
	if c.Cache.Dir != "" && strings.HasPrefix(c.Cache.Trace.Path, c.Cache.Dir+"/") {
		d.errorAt(d.cacheAt.of("trace.path"), "Trace inside the cache",
			"Files in %s are images to the cache, so the trace must not lie there.", d.cacheAt.shownBare("dir", c.Cache.Dir))
	}
}

// checkScrubbed complains about images that nothing ever checks.
func (d *decoder) checkScrubbed(c *Config) {
	scrubbed := slices.ContainsFunc(c.Schedules, func(s Schedule) bool { return slices.Contains(s.Run, TaskScrub) })
	if c.Cache.VerifyReads == options.VerifyNever && !scrubbed {
		d.warnAt(d.cacheAt.of("verify_reads"), "Images are never checked",
			`With "never" only a scrub finds a block that goes bad on the disk, and no schedule has "scrub" in run. Add one, or call imgcache-host verify now and then.`)
	}
}

// checkPeers complains about a node that asks others but cannot be asked, and
// about one that gives the others more rights than intended.
func (d *decoder) checkPeers(c *Config) {
	for _, l := range c.Listeners {
		if c.Peers.TokenFile != "" && l.TokenFile == c.Peers.TokenFile && l.Serves(FaceAdmin) {
			d.errorAt(d.peersAt, "Admin token for other nodes",
				"This node sends other nodes a token, and listener %q lets anyone with that token empty the cache. Give the other nodes a token_file of their own.", l.Name)
		}
	}
	if c.Peers.Name != "" && c.Node.Advertise == "" {
		d.warnAt(d.peersAt, "Other nodes cannot ask this one",
			"This node asks others for images, but does not say where it is. Set node { advertise }, and serve \"peers\" there.")
	}
}

// checkOpen warns of images that only this service may read and that it hands
// to everybody.
func (d *decoder) checkOpen(c *Config) {
	for _, o := range c.Origins {
		for _, l := range c.Listeners {
			if l.Network == TCP && l.Serves(FaceImages) && l.AuthFile == "" && o.showsCredential() {
				d.warnAt(d.origins[o.Name].header, "Private images are open",
					"The service shows the origin %q a credential of its own, and listener %q asks clients for none: who reaches %s reads what the service may read. Set auth_file there, or leave \"images\" out of serve.",
					o.Name, l.Name, d.listeners[l.Name].shownBare("address", l.Address))
			}
		}
	}
}

// showsCredential reports whether the origin is shown something that others need
// not have.
func (o Origin) showsCredential() bool {
	if o.AccessKey != "" {
		return true
	}
	for name, value := range o.Headers {
		if value != "" && credentialPattern.MatchString(name) {
			return true
		}
	}
	return false
}

// credentialPattern is the names of headers that carry credentials.
var credentialPattern = regexp.MustCompile(`(?i)auth|cookie|token|secret|passw|api-?key|access-?key|signature`)

// addAdminSocket makes sure that the command line can reach the service.
func (d *decoder) addAdminSocket(c *Config) {
	for _, l := range c.Listeners {
		if l.Network == Unix && l.Serves(FaceAdmin) {
			return
		}
	}
	l := defaultListener(Unix)
	l.Name = "admin"
	for _, other := range c.Listeners {
		if other.Name == l.Name {
			l.Name = "admin-socket" // "admin" is a good name for a TCP listener too
		}
	}
	l.Path = filepath.Join(c.Node.RunDir, AdminSocket)
	at := positions{header: d.nodeAt.header, hidden: map[string]string{}}
	if source, hidden := d.nodeAt.hidden["run_dir"]; hidden {
		at.hidden["path"] = source
	}
	d.checkSocketPath(l.Path, at)
	c.Listeners = append(c.Listeners, l)
}
