"""The reaper's machine code, as listings for reaper.assemble; the calls' numbers are those of each machine's own table.

x86-64: r12 is the stack at the start (argc, then argv), ebx the child; [rsp] is scratch, [rsp+8] the set of all signals.
arm64: x20 the stack at the start, x21 the child; the same two words at sp.
"""

X86_64 = """
    4989e4             ; mov r12,rsp
    488d35>name        ; lea rsi,[name]
    6a0f               ; push 0xf
    5f                 ; pop rdi
    b89d000000         ; mov eax,0x9d
    0f05               ; syscall
    6a24               ; push 0x24
    5f                 ; pop rdi
    6a01               ; push 0x1
    5e                 ; pop rsi
    b89d000000         ; mov eax,0x9d
    0f05               ; syscall
    6aff               ; push 0xffffffffffffffff
    6a00               ; push 0x0
    488d742408         ; lea rsi,[rsp+0x8]
    6a02               ; push 0x2
    5f                 ; pop rdi
    31d2               ; xor edx,edx
    6a08               ; push 0x8
    415a               ; pop r10
    6a0e               ; push 0xe
    58                 ; pop rax
    0f05               ; syscall
    6a11               ; push 0x11
    5f                 ; pop rdi
    31f6               ; xor esi,esi
    4531d2             ; xor r10d,r10d
    4531c0             ; xor r8d,r8d
    6a38               ; push 0x38
    58                 ; pop rax
    0f05               ; syscall
    85c0               ; test eax,eax
    0f88>failed        ; js failed
    74>>child          ; je child
    89c3               ; mov ebx,eax
wait:
    488d7c2408         ; lea rdi,[rsp+0x8]
    31f6               ; xor esi,esi
    31d2               ; xor edx,edx
    6a08               ; push 0x8
    415a               ; pop r10
    b880000000         ; mov eax,0x80
    0f05               ; syscall
    83f8fc             ; cmp eax,0xfffffffc
    74>>wait           ; je wait
    85c0               ; test eax,eax
    0f88>failed        ; js failed
    83f811             ; cmp eax,0x11
    74>>reap           ; je reap
    89df               ; mov edi,ebx
    89c6               ; mov esi,eax
    6a3e               ; push 0x3e
    58                 ; pop rax
    0f05               ; syscall
    eb>>wait           ; jmp wait
reap:
    6aff               ; push 0xffffffffffffffff
    5f                 ; pop rdi
    4889e6             ; mov rsi,rsp
    6a01               ; push 0x1
    5a                 ; pop rdx
    4531d2             ; xor r10d,r10d
    6a3d               ; push 0x3d
    58                 ; pop rax
    0f05               ; syscall
    85c0               ; test eax,eax
    7e>>wait           ; jle wait
    39d8               ; cmp eax,ebx
    75>>reap           ; jne reap
    8b0424             ; mov eax,[rsp]
    0fb6fc             ; movzx edi,ah
    83e07f             ; and eax,0x7f
    74>>exit           ; je exit
    8db880000000       ; lea edi,[rax+0x80]
exit:
    b8e7000000         ; mov eax,0xe7
    0f05               ; syscall
child:
    31ff               ; xor edi,edi
    31f6               ; xor esi,esi
    6a6d               ; push 0x6d
    58                 ; pop rax
    0f05               ; syscall
    6a27               ; push 0x27
    58                 ; pop rax
    0f05               ; syscall
    890424             ; mov [rsp],eax
    31ff               ; xor edi,edi
    be10540000         ; mov esi,0x5410
    4889e2             ; mov rdx,rsp
    6a10               ; push 0x10
    58                 ; pop rax
    0f05               ; syscall
    6a00               ; push 0x0
    4889e6             ; mov rsi,rsp
    6a02               ; push 0x2
    5f                 ; pop rdi
    31d2               ; xor edx,edx
    6a08               ; push 0x8
    415a               ; pop r10
    6a0e               ; push 0xe
    58                 ; pop rax
    0f05               ; syscall
    498b7c2410         ; mov rdi,[r12+0x10]
    498d742418         ; lea rsi,[r12+0x18]
    498b0c24           ; mov rcx,[r12]
    498d54cc10         ; lea rdx,[r12+rcx*8+0x10]
    6a3b               ; push 0x3b
    58                 ; pop rax
    0f05               ; syscall
    6a7f               ; push 0x7f
    5f                 ; pop rdi
    83f8fe             ; cmp eax,0xfffffffe
    74>>exit           ; je exit
    6a7e               ; push 0x7e
    5f                 ; pop rdi
    eb>>exit           ; jmp exit
failed:
    6a7d               ; push 0x7d
    5f                 ; pop rdi
    eb>>exit           ; jmp exit
"""

AARCH64 = """
    910003f4               ; mov x20, sp
    10000001>name/5/19     ; adr x1, name
    d28001e0               ; mov x0, #0xf
    d28014e8               ; mov x8, #0xa7
    d4000001               ; svc #0x0
    d2800480               ; mov x0, #0x24
    d2800021               ; mov x1, #0x1
    d4000001               ; svc #0x0
    92800009               ; mov x9, #0xffffffffffffffff
    a9bf27ff               ; stp xzr, x9, [sp, #-16]!
    d2800040               ; mov x0, #0x2
    910023e1               ; add x1, sp, #0x8
    d2800002               ; mov x2, #0x0
    d2800103               ; mov x3, #0x8
    d28010e8               ; mov x8, #0x87
    d4000001               ; svc #0x0
    d2800220               ; mov x0, #0x11
    d2800001               ; mov x1, #0x0
    d2800002               ; mov x2, #0x0
    d2800003               ; mov x3, #0x0
    d2800004               ; mov x4, #0x0
    d2801b88               ; mov x8, #0xdc
    d4000001               ; svc #0x0
    b7f80000>failed/5/14   ; tbnz x0, #63, failed
    b4000000>child/5/19    ; cbz x0, child
    aa0003f5               ; mov x21, x0
wait:
    910023e0               ; add x0, sp, #0x8
    d2800001               ; mov x1, #0x0
    d2800002               ; mov x2, #0x0
    d2800103               ; mov x3, #0x8
    d2801128               ; mov x8, #0x89
    d4000001               ; svc #0x0
    b100101f               ; cmn x0, #0x4
    54000000>wait/5/19     ; b.eq wait
    b7f80000>failed/5/14   ; tbnz x0, #63, failed
    f100441f               ; cmp x0, #0x11
    54000000>reap/5/19     ; b.eq reap
    aa0003e1               ; mov x1, x0
    aa1503e0               ; mov x0, x21
    d2801028               ; mov x8, #0x81
    d4000001               ; svc #0x0
    14000000>wait/0/26     ; b wait
reap:
    92800000               ; mov x0, #0xffffffffffffffff
    910003e1               ; mov x1, sp
    d2800022               ; mov x2, #0x1
    d2800003               ; mov x3, #0x0
    d2802088               ; mov x8, #0x104
    d4000001               ; svc #0x0
    f100001f               ; cmp x0, #0x0
    5400000d>wait/5/19     ; b.le wait
    eb15001f               ; cmp x0, x21
    54000001>reap/5/19     ; b.ne reap
    b94003e1               ; ldr w1, [sp]
    53083c20               ; ubfx w0, w1, #8, #8
    72001821               ; ands w1, w1, #0x7f
    54000000>exit/5/19     ; b.eq exit
    11020020               ; add w0, w1, #0x80
exit:
    d2800bc8               ; mov x8, #0x5e
    d4000001               ; svc #0x0
child:
    d2800000               ; mov x0, #0x0
    d2800001               ; mov x1, #0x0
    d2801348               ; mov x8, #0x9a
    d4000001               ; svc #0x0
    d2801588               ; mov x8, #0xac
    d4000001               ; svc #0x0
    b90003e0               ; str w0, [sp]
    d2800000               ; mov x0, #0x0
    d28a8201               ; mov x1, #0x5410
    910003e2               ; mov x2, sp
    d28003a8               ; mov x8, #0x1d
    d4000001               ; svc #0x0
    f90003ff               ; str xzr, [sp]
    d2800040               ; mov x0, #0x2
    910003e1               ; mov x1, sp
    d2800002               ; mov x2, #0x0
    d2800103               ; mov x3, #0x8
    d28010e8               ; mov x8, #0x87
    d4000001               ; svc #0x0
    f9400289               ; ldr x9, [x20]
    f9400a80               ; ldr x0, [x20, #16]
    91006281               ; add x1, x20, #0x18
    8b090e82               ; add x2, x20, x9, lsl #3
    91004042               ; add x2, x2, #0x10
    d2801ba8               ; mov x8, #0xdd
    d4000001               ; svc #0x0
    b100081f               ; cmn x0, #0x2
    52800fe0               ; mov w0, #0x7f
    54000000>exit/5/19     ; b.eq exit
    52800fc0               ; mov w0, #0x7e
    14000000>exit/0/26     ; b exit
failed:
    52800fa0               ; mov w0, #0x7d
    14000000>exit/0/26     ; b exit
"""
