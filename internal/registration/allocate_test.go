package registration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
)

func linkedHubs(weights ...int) (hubs []LinkedHub) {
	for i, weight := range weights {
		hubs = append(hubs, LinkedHub{Name: fmt.Sprintf("hub-%d.example.net", i), Kind: HubAzure, Weight: weight, Allocate: true})
	}
	return hubs
}

// assignments is the hub of each of n devices.
func assignments(hubs []LinkedHub, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = allocate(hubs, AllocationSettings{}, placement{scope: "0lk00000001", id: fmt.Sprintf("line-%d-press-%d", i%17, i)}).hub
	}
	return all
}

func count(hubs []string) map[string]int {
	counted := map[string]int{}
	for _, hub := range hubs {
		counted[hub]++
	}
	return counted
}

// devices are enough for shares within one percent of the whole.
const devices = 100_000

// fiveHubs are where the devices are before anything is added.
var fiveHubs = sync.OnceValue(func() []string { return assignments(linkedHubs(1, 2, 3, 4, 10), devices) })

func TestHubsGetTheirShareByWeight(t *testing.T) {
	hubs := linkedHubs(1, 2, 3, 4, 10)
	got, total, chi := count(fiveHubs()), 0, 0.0
	for _, hub := range hubs {
		total += hub.Weight
	}
	for _, hub := range hubs {
		want := devices * float64(hub.Weight) / float64(total)
		off := float64(got[hub.Name]) - want
		if math.Abs(off) > devices*0.01 {
			t.Errorf("%s of weight %d has %d of %d devices, want about %.0f", hub.Name, hub.Weight, got[hub.Name], devices, want)
		}
		chi += off * off / want
	}
	if chi > 18.47 { // 4 degrees of freedom, one in a thousand: no better a hash would come out so
		t.Errorf("the shares are too far from the weights for chance: chi-squared is %.1f, %v", chi, got)
	}
}

func TestANewHubTakesItsShareAndMovesNobodyElse(t *testing.T) {
	before := fiveHubs()
	after := assignments(append(linkedHubs(1, 2, 3, 4, 10), LinkedHub{Name: "new.example.net", Weight: 5, Allocate: true}), devices)
	moved := 0
	for i := range before {
		if before[i] == after[i] {
			continue
		}
		if moved++; after[i] != "new.example.net" {
			t.Fatalf("device %d moved from %s to %s, which were both there before", i, before[i], after[i])
		}
	}
	if want := devices * 5 / 25; math.Abs(float64(moved-want)) > devices*0.01 {
		t.Errorf("%d devices moved, want about %d", moved, want)
	}
}

// An order or a spelling that a node happens to have must not decide.
func TestTheSameDeviceComesToTheSameHub(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hubs := linkedHubs(rapid.SliceOfN(rapid.IntRange(1, MaxHubWeight), 1, 12).Draw(t, "weights")...)
		id := rapid.StringMatching(`[a-zA-Z0-9]{1,20}`).Draw(t, "id")
		want := allocate(hubs, AllocationSettings{}, placement{scope: "s", id: id})
		shuffled := slices.Clone(hubs)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := allocate(shuffled, AllocationSettings{}, placement{scope: "s", id: dps.FoldID(id)}); got != want {
			t.Errorf("%q comes to %v in one order and to %v in another", id, want, got)
		}
		// Whoever is taken away moves his devices only.
		gone := rapid.IntRange(0, len(hubs)-1).Draw(t, "gone")
		if hubs[gone].Name != want.hub {
			if got := allocate(slices.Delete(slices.Clone(hubs), gone, gone+1), AllocationSettings{}, placement{scope: "s", id: id}); got != want {
				t.Errorf("%q moved from %v to %v though another hub went", id, want, got)
			}
		}
	})
}

// Known answers, computed apart from this code with 50 decimal places: a release that chose otherwise would move a fleet at its next registrations.
func TestTheChoiceIsTheSameInEveryRelease(t *testing.T) {
	hubs, got := linkedHubs(1, 2, 3), ""
	for i := range 24 {
		got += allocate(hubs, AllocationSettings{}, placement{scope: "0lkabcdef01", id: fmt.Sprintf("device-%d", i)}).hub[4:5]
	}
	if want := "101022102011112122202021"; got != want {
		t.Errorf("the devices come to %s, want %s", got, want)
	}
}

func TestTheLogarithmIsExactEnough(t *testing.T) {
	if got := minusLog2(0); got != 64<<logBits {
		t.Errorf("of the smallest number it is %d", got)
	}
	if got := minusLog2(1<<63 - 1); got != 1<<logBits {
		t.Errorf("of a half it is %d, want %d", got, 1<<logBits)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		n := random.Uint64() >> random.IntN(64)
		got, want := float64(minusLog2(n))/(1<<logBits), 64-math.Log2(float64(n)+1)
		if math.Abs(got-want) > 1e-9 {
			t.Fatalf("of %d it is %v, want %v", n, got, want)
		}
	}
}

func TestWhoMayBeChosen(t *testing.T) {
	hubs := linkedHubs(1, 1, 1)
	hubs[1].Allocate = false
	hubs[2].Draining = true
	a, b, c := hubs[0].Name, hubs[1].Name, hubs[2].Name
	for name, test := range map[string]struct {
		hubs     []LinkedHub
		settings AllocationSettings
		placement
		want string
		why  string
	}{
		"nothing said: those that take part and do not drain":   {hubs: hubs, want: a},
		"one outside is reached by name":                        {hubs: hubs, placement: placement{policy: "hashed", named: []string{"HUB-1.example.NET"}}, want: b},
		"one that drains is not, by name either":                {hubs: hubs, placement: placement{policy: "static", named: []string{c}}, why: "every hub that the device may be given to is being drained"},
		"who is at one that drains leaves":                      {hubs: hubs, placement: placement{current: c}, want: a},
		"who is at one that drains stays where nothing is left": {hubs: hubs, placement: placement{named: []string{c}, current: c}, want: c},
		"an unlinked one that is named is passed over":          {hubs: hubs, placement: placement{named: []string{"gone.example.net", a}}, want: a},
		"none of the named ones is linked":                      {hubs: hubs, placement: placement{named: []string{"gone.example.net"}}, why: "none of the hubs that the entry names is linked"},
		"nothing takes part":                                    {hubs: hubs[1:2], why: "no linked hub takes part in allocation"},
		"no hubs at all":                                        {why: "no linked hub takes part in allocation"},
		"static goes to the first that is named":                {hubs: hubs, placement: placement{policy: "static", named: []string{b, a}}, want: b},
		"static never goes to the second":                       {hubs: hubs, placement: placement{policy: "static", named: []string{"gone.example.net", a}}, why: "none of the hubs that the entry names is linked"},
		"static without a name and with one hub":                {hubs: hubs[:1], settings: AllocationSettings{Default: "static"}, want: a},
		"static without a name and with several":                {hubs: linkedHubs(1, 1), settings: AllocationSettings{Default: "static"}, why: "the allocation policy is static and names no hub, while several are linked: name one"},
		"the entry's policy goes before the scope's":            {hubs: linkedHubs(1), settings: AllocationSettings{Default: "static"}, placement: placement{policy: "hashed"}, want: a},
	} {
		t.Run(name, func(t *testing.T) {
			got := allocate(test.hubs, test.settings, test.placement)
			if got.hub != test.want || got.why != test.why {
				t.Errorf("got %+v, want %q (%s)", got, test.want, test.why)
			}
		})
	}
}

func TestTheNearestHubIsChosen(t *testing.T) {
	hubs := linkedHubs(1, 1, 1)
	hubs[2].Region = "Asia"
	near, far, home := hubs[0].Name, hubs[1].Name, hubs[2].Name
	settings := AllocationSettings{Default: dps.AllocationGeoLatency, Regions: []Region{
		{Name: "europe", Networks: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}, Latency: map[string]int{near: 10, far: 90, home: 200}},
		{Name: "a factory of europe", Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Latency: map[string]int{near: 50, far: 5}},
		{Name: "asia", Networks: []netip.Prefix{netip.MustParsePrefix("203.0.0.0/8")}, Latency: map[string]int{near: 300}},
		{Name: "nowhere", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.0.0/8")}},
	}}
	measured := map[string]time.Duration{near: 40 * time.Millisecond, far: 45 * time.Millisecond, home: 60 * time.Millisecond}
	measure := func(hub string) (time.Duration, bool) { d, ok := measured[hub]; return d, ok }
	for name, test := range map[string]struct {
		address, current string
		measured         func(string) (time.Duration, bool)
		want             []string
	}{
		"by the operator's table":                          {address: "198.51.1.1", want: []string{near}},
		"of two networks the narrower":                     {address: "198.51.100.7", want: []string{far}},
		"in IPv6":                                          {address: "2001:db8::5", want: []string{near}},
		"IPv4 written as IPv6":                             {address: "::ffff:198.51.100.7", want: []string{far}},
		"a hub in the device's own region":                 {address: "203.1.2.3", want: []string{home}},
		"nothing is known: as hashed":                      {address: "192.0.2.1", want: []string{near, far, home}},
		"no address: as hashed":                            {want: []string{near, far, home}},
		"what is measured where the table says nothing":    {address: "192.0.2.1", measured: measure, want: []string{near}},
		"who is about as near stays":                       {address: "192.0.2.1", measured: measure, current: far, want: []string{far}},
		"who is clearly farther moves":                     {address: "192.0.2.1", measured: measure, current: home, want: []string{near}},
		"the table's figures count to the millisecond":     {address: "198.51.1.1", measured: measure, current: far, want: []string{near}},
		"a table that leaves one out is filled by measure": {address: "198.51.100.7", measured: func(hub string) (time.Duration, bool) { return time.Millisecond, hub == home }, want: []string{home}},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := netip.ParseAddr(test.address)
			for i := range 50 {
				p := placement{scope: "s", id: fmt.Sprint(i), address: address, current: test.current, measured: test.measured}
				if got := allocate(hubs, settings, p); !slices.Contains(test.want, got.hub) {
					t.Fatalf("device %d comes to %+v, want one of %v", i, got, test.want)
				}
			}
		})
	}
}

// Hubs that are equally near share by weight, as hashed ones.
func TestEquallyNearHubsShare(t *testing.T) {
	hubs := linkedHubs(1, 3, 1)
	settings := AllocationSettings{Default: dps.AllocationGeoLatency, Regions: []Region{{Name: "all", Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		Latency: map[string]int{hubs[0].Name: 10, hubs[1].Name: 10, hubs[2].Name: 11}}}}
	counted := map[string]int{}
	for i := range 10_000 {
		counted[allocate(hubs, settings, placement{scope: "s", id: fmt.Sprint(i), address: netip.MustParseAddr("192.0.2.1")}).hub]++
	}
	if counted[hubs[2].Name] != 0 || math.Abs(float64(counted[hubs[1].Name])-7500) > 200 {
		t.Errorf("they share %v", counted)
	}
}

func BenchmarkAllocate(b *testing.B) {
	for _, n := range []int{1, 5, MaxHubs} {
		hubs := linkedHubs(slices.Repeat([]int{7}, n)...)
		b.Run(fmt.Sprintf("hubs=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				allocate(hubs, AllocationSettings{}, placement{scope: "0lk00000001", id: "line-4-press-1017"})
			}
		})
	}
}
