package fifo_test

import (
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, fifo.Manifest)
	sdktest.Scorer(t, func(*testing.T) sdk.Scorer { return fifo.New() })
}

func TestAgreesWithTextbook(t *testing.T) {
	policytest.Agree(t, 10_000, func(*testing.T) sdk.Stateful { return policytest.Ranked(fifo.New()) }, policytest.FIFO)
}
