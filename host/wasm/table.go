package wasm

import (
	"encoding/binary"
	"fmt"

	"github.com/imgcache/imgcache-host/sdk"
)

// maxElements bounds the elements that the tables of a module have at first, and
// how many they may grow by. Each takes eight bytes outside the module's memory.
// A Go guest has some ten thousand.
const maxElements = 1 << 20

// errTables says that a module has too many elements from the beginning.
var errTables = fmt.Errorf("%w: the module's tables have more than %d elements", sdk.ErrInvalid, maxElements)

// boundTables returns the module with a maximum for each of its tables, because
// the runtime limits only memories. If a module asks for more later, growing
// fails; if it begins with more, the error wraps sdk.ErrInvalid.
func boundTables(code []byte) ([]byte, error) {
	bounded := append(make([]byte, 0, len(code)+len(preamble)), preamble...)
	for rest := code[len(preamble):]; len(rest) > 0; {
		const tables = 4
		id := rest[0]
		section, after, ok := sized(rest[1:])
		if !ok {
			return nil, errSection
		}
		if id == tables {
			var err error
			if section, err = boundSection(section); err != nil {
				return nil, err
			}
		}
		bounded = binary.AppendUvarint(append(bounded, id), uint64(len(section)))
		bounded, rest = append(bounded, section...), after
	}
	return bounded, nil
}

// boundSection bounds the tables that a section declares. The section has their
// number, and for each table the type of its elements, whether there is a
// maximum, the minimum, and the maximum if there is one.
func boundSection(section []byte) ([]byte, error) {
	const funcref, externref = 0x70, 0x6f
	r := numbers{rest: section}
	count := r.next()
	if count > maxElements {
		return nil, errTables
	}
	bounded, room := binary.AppendUvarint(nil, count), uint64(maxElements)
	for i := uint64(0); i < count && !r.bad; i++ {
		element, bound, least := r.next(), r.next(), r.next()
		most := uint64(maxElements) / count
		if bound == 1 {
			most = min(most, r.next())
		}
		if element != funcref && element != externref || bound > 1 {
			r.bad = true // a later version of WebAssembly
		}
		if least > room {
			return nil, errTables
		}
		room -= least
		for _, n := range []uint64{element, 1, least, max(least, most)} {
			bounded = binary.AppendUvarint(bounded, n)
		}
	}
	if r.bad || len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: the tables of the module do not follow WebAssembly 2.0", sdk.ErrInvalid)
	}
	return bounded, nil
}

// numbers reads a section that consists of numbers. After its end, bad is true
// and each number is 0.
type numbers struct {
	rest []byte
	bad  bool
}

func (r *numbers) next() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
