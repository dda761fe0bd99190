package lfu_test

import (
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/lfu"
	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, lfu.Manifest)
	sdktest.Scorer(t, func(*testing.T) sdk.Scorer { return lfu.New() })
}

func TestAgreesWithTextbook(t *testing.T) {
	policytest.Agree(t, 20_000, func(*testing.T) sdk.Stateful { return policytest.Ranked(lfu.New()) }, policytest.LFU)
}
