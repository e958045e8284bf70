// The workloads of benches/peer-coro in Go: RUNTIME WORKLOAD [key=value]... with RUNTIME go-1 (GOMAXPROCS=1) or go-2. Every
// measured value is a line "workload runtime metric value". Exit code 2 when called wrongly, 3 for a workload that Go has
// nothing for, and why on the standard error stream.
//
// Only the standard library, and only what Go 1.19 has.
package main

import (
	"fmt"
	"math/bits"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	name     string
	workload string
	keys     = map[string]string{}
)

func fail(code int, format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(code)
}

func check(err error) {
	if err != nil {
		fail(1, "%v", err)
	}
}

func expect(ok bool, what string) {
	if !ok {
		panic(what)
	}
}

func text(key, otherwise string) string {
	if value, ok := keys[key]; ok {
		return value
	}
	return otherwise
}

func number(key string, otherwise int) int {
	value, ok := keys[key]
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		fail(2, "%s=%s is not a number that fits", key, value)
	}
	return n
}

func report(metric string, value float64) {
	fmt.Printf("%s %s %s %.3f\n", workload, name, metric, value)
}

func each(took time.Duration, n int) float64 { return float64(took) / float64(n) }

func yields() {
	n := number("n", 2)
	perTask := number("total", 10_000_000) / n
	var all sync.WaitGroup
	all.Add(n)
	start := time.Now()
	for i := 0; i < n; i++ {
		go func() {
			defer all.Done()
			for k := 0; k < perTask; k++ {
				runtime.Gosched()
			}
		}()
	}
	all.Wait()
	report("ns_per_yield", each(time.Since(start), perTask*n))
}

// After how many of all yields another goroutine had run.
func rotation() {
	n, perTask := number("n", 100), number("per", 1000)
	var last, turned atomic.Int64
	var all sync.WaitGroup
	all.Add(n)
	for i := 0; i < n; i++ {
		go func(me int64) {
			defer all.Done()
			for k := 0; k < perTask; k++ {
				last.Store(me)
				runtime.Gosched()
				if last.Load() != me {
					turned.Add(1)
				}
			}
		}(int64(i))
	}
	all.Wait()
	report("rotation_pct", float64(turned.Load())*100/float64(n*perTask))
}

// Goroutines in waves, each waited for before the next. There is no handle that gives a result: a WaitGroup, and a place for each.
func spawn() {
	total := number("total", 1_000_000)
	wave := total
	switch text("mode", "burst") {
	case "burst":
	case "waves":
		wave = number("wave", 1000)
	case "local":
		fail(3, "no tasks that stay on a thread")
	default:
		fail(3, "no such way to spawn")
	}
	results := make([]uint64, wave)
	sum := uint64(0)
	start := time.Now()
	for w := 0; w < total/wave; w++ {
		var all sync.WaitGroup
		all.Add(wave)
		for i := 0; i < wave; i++ {
			go func(i int) {
				results[i] = uint64(i)
				all.Done()
			}(i)
		}
		all.Wait()
		for i, result := range results {
			sum += result
			results[i] = 0
		}
	}
	took := time.Since(start)
	expect(sum == uint64(total/wave)*uint64(wave)*uint64(wave-1)/2, "a goroutine was lost or ran twice")
	report("ns_per_task", each(took, total/wave*wave))
}

func bounded() {
	if text("chan", "b") != "b" {
		fail(3, "no unbounded channel")
	}
}

// Between two threads: each goroutine has one for itself. Then what the process uses of a CPU while both wait.
func pingPongAcross() {
	if runtime.GOMAXPROCS(0) < 2 {
		fail(3, "one thread")
	}
	const end = ^uint64(0)
	rounds, wait := uint64(number("rounds", 200_000)), time.Duration(number("idle", 0))*time.Millisecond
	toB, toA := make(chan uint64, 1), make(chan uint64, 1)
	took := make(chan time.Duration)
	var both sync.WaitGroup
	both.Add(2)
	start := time.Now()
	go func() {
		runtime.LockOSThread()
		defer both.Done()
		for i := uint64(0); i < rounds; i++ {
			toB <- i
			expect(<-toA == i, "another message came back")
		}
		took <- time.Since(start)
		expect(<-toA == end, "another message came last")
		toB <- end
	}()
	go func() {
		runtime.LockOSThread()
		defer both.Done()
		for i := uint64(0); i < rounds; i++ {
			toA <- <-toB
		}
		expect(<-toB == end, "another message came last")
	}()
	report("ns_per_round_trip", each(<-took, int(rounds)))
	if wait > 0 {
		since, used := time.Now(), cpuTime()
		time.Sleep(wait)
		report("idle_cpu_pct", float64(cpuTime()-used)*100/float64(time.Since(since)))
	}
	toA <- end
	both.Wait()
}

func pingPong() {
	bounded()
	if text("place", "natural") == "cross" {
		pingPongAcross()
		return
	}
	rounds := uint64(number("rounds", 1_000_000))
	toB, toA := make(chan uint64, 1), make(chan uint64, 1)
	var both sync.WaitGroup
	both.Add(2)
	start := time.Now()
	go func() {
		defer both.Done()
		for i := uint64(0); i < rounds; i++ {
			toB <- i
			expect(<-toA == i, "another message came back")
		}
	}()
	go func() {
		defer both.Done()
		for i := uint64(0); i < rounds; i++ {
			toA <- <-toB
		}
	}()
	both.Wait()
	report("ns_per_round_trip", each(time.Since(start), int(rounds)))
}

func fanIn() {
	bounded()
	producers, total := number("producers", 16), number("total", 4_000_000)
	perTask := total / producers
	messages := make(chan uint64, number("cap", 1024))
	done := make(chan uint64)
	start := time.Now()
	for p := 0; p < producers; p++ {
		go func() {
			for i := uint64(0); i < uint64(perTask); i++ {
				messages <- i
			}
		}()
	}
	go func() {
		sum := uint64(0)
		for i := 0; i < perTask*producers; i++ {
			sum += <-messages
		}
		done <- sum
	}()
	sum := <-done
	took := time.Since(start)
	expect(sum == uint64(producers)*uint64(perTask)*uint64(perTask-1)/2, "a message was lost or came twice")
	report("ns_per_msg", each(took, perTask*producers))
}

func mutex() {
	tasks, rounds, every := number("tasks", 100), number("iters", 100_000), number("every", 1000)
	var lock sync.Mutex
	counter := 0
	var all sync.WaitGroup
	all.Add(tasks)
	start := time.Now()
	for t := 0; t < tasks; t++ {
		go func() {
			defer all.Done()
			for i := 1; i <= rounds; i++ {
				lock.Lock()
				counter++
				if every != 0 && i%every == 0 {
					runtime.Gosched()
				}
				lock.Unlock()
			}
		}()
	}
	all.Wait()
	took := time.Since(start)
	expect(counter == tasks*rounds, "the lock lost an update")
	report("ns_per_lock", each(took, tasks*rounds))
}

// xorshift64*, seeded as in the other programs: all sleep for the same times.
type random uint64

func seeded(seed uint64) random { return random(seed*0x9e3779b97f4a7c15 | 1) }

func (r *random) below(bound uint64) uint64 {
	x := uint64(*r)
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	*r = random(x)
	return x * 0x2545f4914f6cdd1d % bound
}

// Steps per power of two, as a shift.
const fine = 6

// A log-linear histogram of nanoseconds: values are told apart to 1.6 %.
type histogram struct {
	counts [64 << fine]atomic.Uint64
	max    atomic.Uint64
}

func (h *histogram) add(ns uint64) {
	place := int(ns)
	if ns >= 1<<fine {
		shift := bits.Len64(ns) - 1 - fine
		place = (shift+1)<<fine + int(ns>>shift) - 1<<fine
	}
	h.counts[place].Add(1)
	for max := h.max.Load(); ns > max && !h.max.CompareAndSwap(max, ns); max = h.max.Load() {
	}
}

func (h *histogram) quantile(share float64) float64 {
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	wanted := uint64(share * float64(total))
	seen := uint64(0)
	for place := range h.counts {
		seen += h.counts[place].Load()
		if seen > 0 && seen >= wanted {
			if place < 1<<fine {
				return float64(place)
			}
			row, column := place>>fine, place&(1<<fine-1)
			return float64(uint64(column+1<<fine) << (row - 1))
		}
	}
	return float64(h.max.Load())
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func timers() {
	tasks, perTask := number("conc", 100_000), number("per", 10)
	late := &histogram{}
	var all sync.WaitGroup
	all.Add(tasks)
	start, cpu := time.Now(), cpuTime()
	for t := 1; t <= tasks; t++ {
		go func(seed uint64) {
			defer all.Done()
			r := seeded(seed)
			for round := 0; round < perTask; round++ {
				wanted := time.Duration(1+r.below(1000)) * time.Millisecond
				start := time.Now()
				time.Sleep(wanted)
				slept := time.Since(start)
				expect(slept >= wanted, "a sleep ended early")
				// The first sleep of each feels the burst of starts.
				if round > 0 {
					late.add(uint64(slept - wanted))
				}
			}
		}(uint64(t))
	}
	all.Wait()
	report("cpu_ns_per_timer", each(cpuTime()-cpu, tasks*perTask))
	report("late_p50_us", late.quantile(0.5)/1e3)
	report("late_p99_us", late.quantile(0.99)/1e3)
	report("late_max_us", float64(late.max.Load())/1e3)
	report("wall_s", time.Since(start).Seconds())
}

// Bytes resident and bytes of page tables, by the kernel's account.
func memoryNow() (resident, tables float64) {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	for _, line := range strings.Split(string(status), "\n") {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(words[1], 64)
		switch words[0] {
		case "VmRSS:":
			resident = kib * 1024
		case "VmPTE:":
			tables = kib * 1024
		}
	}
	return
}

func memory() {
	n := number("n", 10_000)
	first := make(chan struct{})
	go close(first)
	<-first
	resident, tables := memoryNow()
	never := make(chan struct{})
	started := make(chan time.Time)
	var left atomic.Int64
	left.Store(int64(n))
	start := time.Now()
	for i := 0; i < n; i++ {
		go func() {
			if left.Add(-1) == 0 {
				started <- time.Now()
			}
			<-never
		}()
	}
	took := (<-started).Sub(start)
	time.Sleep(5 * time.Millisecond)
	residentThen, tablesThen := memoryNow()
	report("bytes_per_task", (residentThen-resident+tablesThen-tables)/float64(n))
	report("pte_bytes_per_task", (tablesThen-tables)/float64(n))
	report("create_ns_per_task", each(took, n))
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number("port", 7000)))
	check(err)
	fmt.Println("READY")
	return listener
}

// Connections have TCP_NODELAY unless told otherwise.
func echoServer() {
	listener := listen()
	for {
		connection, err := listener.Accept()
		check(err)
		go func() {
			defer connection.Close()
			var buffer [1024]byte
			for {
				n, err := connection.Read(buffer[:])
				if err != nil {
					return
				}
				if _, err = connection.Write(buffer[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func httpServer() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte("Hello, World!"))
	})
	check(http.Serve(listen(), nil))
}

func main() {
	if len(os.Args) < 3 {
		fail(2, "usage: peer-go go-1|go-2 WORKLOAD [key=value]...")
	}
	name, workload = os.Args[1], os.Args[2]
	switch name {
	case "go-1":
		runtime.GOMAXPROCS(1)
	case "go-2":
		runtime.GOMAXPROCS(2)
	default:
		fail(2, "there is no runtime %q", name)
	}
	for _, word := range os.Args[3:] {
		key, value, found := strings.Cut(word, "=")
		if !found {
			fail(2, "%q is not key=value", word)
		}
		keys[key] = value
	}
	workloads := map[string]func(){
		"yield": yields, "yieldcheck": rotation, "spawn": spawn, "pingpong": pingPong, "fanin": fanIn, "mutex": mutex,
		"timers": timers, "mem": memory, "echo-server": echoServer, "http-server": httpServer,
	}
	run, known := workloads[workload]
	if !known {
		fail(3, "no workload %q", workload)
	}
	run()
}
