package trace

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// readOracle reads libCacheSim's oracleGeneral: records of u32 time in seconds,
// u64 id, u32 size and i64 place of the next access, little-endian, without a
// header (libCacheSim, doc/quickstart_traceAnalyzer and traceReader).
func readOracle(r io.Reader, take func(Access)) error {
	return readRecords(r, 24, func(b []byte) error {
		take(Access{
			At:   int64(binary.LittleEndian.Uint32(b)) * int64(time.Second),
			Key:  sdk.Key(binary.LittleEndian.Uint64(b[4:])),
			Size: uint64(binary.LittleEndian.Uint32(b[12:])),
		})
		return nil
	})
}
